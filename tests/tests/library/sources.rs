//! Sources that are hostile, damaged or something else.

use std::path::Path;

use cmz_codec::convert::compress;
use cmz_codec::{Code, ErrorKind};
use cmz_tests::folder::{Folder, options};
use cmz_tests::source::{Source, file_of};

/// The error that a source raises; it leaves no file behind.
fn refused(source: &[u8]) -> cmz_codec::Error {
    let folder = Folder::new();
    let error = folder.compress("file.cmz", source, &options(2)).unwrap_err();
    assert_eq!(folder.names(), ["source.safetensors"], "{error}");
    assert_eq!(error.file(), Some(folder.path("source.safetensors").as_path()), "{error}");
    error
}

/// One tensor of `U8` with 4 bytes of data behind the header.
fn entry(text: &str) -> Vec<u8> {
    file_of(text.as_bytes(), &[1, 2, 3, 4])
}

#[test]
fn hostile_headers() {
    let good = r#""dtype":"U8","shape":[4],"data_offsets":[0,4]"#;
    let bad: Vec<(&str, String)> = vec![
        ("no JSON", "weights".into()),
        ("empty", String::new()),
        ("a number", "7".into()),
        ("an array", "[]".into()),
        ("two values", format!("{{\"a\":{{{good}}}}}{{}}")),
        ("zero behind it", format!("{{\"a\":{{{good}}}}}\0")),
        ("cut", format!("{{\"a\":{{{good}}}")),
        ("name twice", format!("{{\"a\":{{{good}}},\"a\":{{{good}}}}}")),
        ("name twice, escaped", format!("{{\"a\":{{{good}}},\"\\u0061\":{{{good}}}}}")),
        ("key twice", format!("{{\"a\":{{\"dtype\":\"U8\",{good}}}}}")),
        ("metadata twice", r#"{"__metadata__":{},"__metadata__":{}}"#.into()),
        ("metadata key twice", r#"{"__metadata__":{"a":"1","a":"2"}}"#.into()),
        ("metadata list", r#"{"__metadata__":["a"]}"#.into()),
        ("overlap", format!("{{\"a\":{{{good}}},\"b\":{{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}}}")),
        ("same place", format!("{{\"a\":{{{good}}},\"b\":{{{good}}}}}")),
        (
            "empty inside",
            format!("{{\"a\":{{{good}}},\"b\":{{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[2,2]}}}}"),
        ),
        ("backwards", r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}}"#.into()),
        ("shape larger", r#"{"a":{"dtype":"U8","shape":[5],"data_offsets":[0,4]}}"#.into()),
        ("shape smaller", r#"{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,4]}}"#.into()),
        ("shape overflow", r#"{"a":{"dtype":"U8","shape":[4294967296,4294967297],"data_offsets":[0,4]}}"#.into()),
        ("shape overflow to 4", r#"{"a":{"dtype":"U8","shape":[4611686018427387905,4],"data_offsets":[0,4]}}"#.into()),
        ("bytes overflow", r#"{"a":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,4]}}"#.into()),
        ("half a byte", r#"{"a":{"dtype":"F4","shape":[7],"data_offsets":[0,4]}}"#.into()),
        ("negative", r#"{"a":{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}}"#.into()),
        ("fraction", r#"{"a":{"dtype":"U8","shape":[4.0],"data_offsets":[0,4]}}"#.into()),
        ("65 bits", r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,36893488147419103232]}}"#.into()),
        ("three offsets", r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4,4]}}"#.into()),
        ("no dtype", r#"{"a":{"shape":[4],"data_offsets":[0,4]}}"#.into()),
        ("no shape", r#"{"a":{"dtype":"U8","data_offsets":[0,4]}}"#.into()),
        ("no offsets", r#"{"a":{"dtype":"U8","shape":[4]}}"#.into()),
        ("half a character", r#"{"\ud800":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#.into()),
        ("deep", format!("{{\"a\":{}{}}}", "[".repeat(200_000), "]".repeat(200_000))),
        ("deep metadata", format!("{{\"__metadata__\":{{\"a\":{}{}}}}}", "[".repeat(200_000), "]".repeat(200_000))),
        ("deep objects", format!("{}{}", "{\"a\":".repeat(200_000), "}".repeat(200_000))),
    ];
    for (what, text) in bad {
        let error = refused(&entry(&text));
        assert_eq!(error.code(), Code::BadSource, "{what}: {error}");
    }
    let latin = file_of(b"{\"caf\xe9\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}", &[0; 4]);
    assert_eq!(refused(&latin).code(), Code::BadSource);
}

#[test]
fn more_than_the_file_holds() {
    let text = |end: u64| format!("{{\"a\":{{\"dtype\":\"U8\",\"shape\":[{end}],\"data_offsets\":[0,{end}]}}}}");
    for end in [5, 1 << 32, (1 << 63) - 1, u64::MAX] {
        assert_eq!(refused(&entry(&text(end))).code(), Code::Truncated, "{end}");
    }
    // A header that claims more than the file has, or than any header has.
    let claims = |len: u64| [&len.to_le_bytes()[..], b"{}"].concat();
    for (len, code) in [
        (3, Code::Truncated),
        (100_000_000, Code::Truncated),
        (100_000_001, Code::BadSource),
        (1 << 40, Code::BadSource),
        (u64::MAX, Code::BadSource),
    ] {
        assert_eq!(refused(&claims(len)).code(), code, "{len}");
    }
}

#[test]
fn other_files() {
    let others: [(&str, &[u8]); 7] = [
        ("Git LFS", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
        ("a web page", b"\n<!DOCTYPE html>\n<html></html>"),
        ("a web page", b"\xef\xbb\xbf<HTML><body>login</body></html>"),
        (".cmz", b"\x89CMZ\r\n\x1a\n0000000000000000"),
        ("GGUF", b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0"),
        ("pickle", b"PK\x03\x04\0\0\0\0\0\0archive/data.pkl"),
        ("pickle", b"\x80\x02}q\x00(X\x05\0\0\0modelq\x01"),
    ];
    for (what, bytes) in others {
        let error = refused(bytes);
        assert_eq!(error.code(), Code::NotWeights, "{error}");
        assert!(error.message().contains(what), "{error}");
        assert!(error.help().is_some());
    }
}

#[test]
fn paths_that_are_no_files() {
    let folder = Folder::new();
    let target = folder.path("file.cmz");
    for path in [folder.path("missing"), Path::new("/dev/null").to_owned(), Path::new("/").to_owned()] {
        let error = compress(&path, &target, &options(1), &()).unwrap_err();
        assert_eq!(error.code(), Code::Io, "{error}");
    }
    assert!(folder.names().is_empty());
}

/// What the format cannot hold is refused before anything is written.
#[test]
fn more_than_the_format_holds() {
    let many_dims = Source::new().tensor("a", "U8", &[1; 65], [1]).build();
    let long_name = Source::new().tensor(&"x".repeat(70_000), "U8", &[1], [1]).build();
    for source in [many_dims, long_name] {
        let folder = Folder::new();
        let error = folder.compress("file.cmz", &source, &options(1)).unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::InvalidArgument | ErrorKind::Refused | ErrorKind::Corrupt),
            "{error}"
        );
        assert!(!folder.names().contains(&"file.cmz".to_owned()));
    }
}

/// Keys that collide in other parsers are two tensors here.
#[test]
fn names_are_compared_byte_by_byte() {
    let source = Source::new()
        .tensor("a", "U8", &[1], [1])
        .tensor("A", "U8", &[1], [2])
        .tensor("\u{e9}", "U8", &[1], [3])
        .tensor("e\u{301}", "U8", &[1], [4])
        .tensor("a\0", "U8", &[1], [5])
        .build();
    let folder = Folder::new();
    folder.compress("file.cmz", &source, &options(1)).unwrap();
    let archive = cmz_codec::Archive::open(&folder.path("file.cmz")).unwrap();
    for (name, value) in [("a", 1), ("A", 2), ("\u{e9}", 3), ("e\u{301}", 4), ("a\0", 5)] {
        assert_eq!(archive.read(name).unwrap(), [value]);
    }
}
