//! Views that cannot be read leave the rest of a file alone.

use cmz_codec::{Archive, Code};
use cmz_tests::check::{open_bytes, read_everything};
use cmz_tests::golden::good;
use cmz_tests::raw_file::RawFile;
use serde_json::{Value, json};

fn changed(change: impl FnOnce(&mut Value)) -> Archive {
    let file = good().iter().find(|case| case.name == "good-views").unwrap();
    let mut raw = RawFile::parse(&file.bytes);
    raw.edit_manifest(|manifest| change(&mut manifest["views"]));
    open_bytes(&raw.build()).unwrap()
}

#[test]
fn a_view_that_is_not_known_is_alone_in_it() {
    let archive = changed(|views| {
        views[0]["layout"] = json!("from-the-future");
        views[1]["params"]["axis"] = json!(1);
        views[2]["dtype"] = json!("F4");
        views[3]["shape"] = json!([3, 13]);
        views[4]["parts"]["codes"] = json!("awq.codes");
    });
    read_everything(&archive).unwrap();
    let codes: Vec<_> =
        archive.views()[..5].iter().map(|view| archive.read_view(&view.name).unwrap_err().code()).collect();
    let (unknown, malformed) = (Code::UnknownEncoding, Code::Malformed);
    assert_eq!(codes, [unknown, unknown, unknown, malformed, malformed]);
    for view in &archive.views()[5..] {
        archive.read_view(&view.name).unwrap();
    }
}

#[test]
fn errors_name_the_view() {
    let archive = changed(|views| views[0]["params"]["bits"] = json!(3));
    let error = archive.check_view("awq").unwrap_err();
    assert_eq!((error.code(), error.tensor()), (Code::Malformed, Some("awq")));
    let error = archive.read_view("missing").unwrap_err();
    assert_eq!((error.code(), error.tensor()), (Code::InvalidArgument, Some("missing")));
    assert_eq!(archive.read_view_rows("gptq", 3..9).unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(archive.read("gptq").unwrap_err().code(), Code::InvalidArgument);
}
