//! Views: written, read back, and refused where they break a rule.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;

use cmz_format::{Code, Index, Limits, Manifest, Plan, View, Writer};
use common::{HEADER, open, tensor};
use serde_json::{Value, json};

fn plan() -> Plan {
    ["codes", "scales"].map(|name| common::planned(tensor(name, "U8", &[10], 10, &[&["raw", "zstd"]]), false)).into()
}

fn view(name: &str) -> View {
    serde_json::from_value(json!({
        "name": name, "dtype": "F16", "shape": [2, 5], "layout": "from-the-future",
        "params": {"bits": 4}, "parts": {"codes": "codes", "scales": "scales"},
    }))
    .unwrap()
}

fn written(views: Vec<View>) -> cmz_format::Result<Vec<u8>> {
    let plan = plan();
    let mut writer = Writer::new(Vec::new(), &HEADER, plan.clone())?;
    common::drive(&mut writer, &plan)?;
    writer.set_views(views);
    writer.finish("test", Some(common::source(&plan)), BTreeMap::new())
}

#[test]
fn views_come_back() {
    let views = vec![view("weight"), View { params: serde_json::Map::new(), ..view("weight é") }];
    let file = written(views.clone()).unwrap();
    common::verify(&file).unwrap();
    let index: Index = open(&file).unwrap();
    assert_eq!(index.views(), views);
    assert_eq!(index.find_view("weight é"), Some(&views[1]));
    assert!(index.find_view("codes").is_none() && index.find("weight").is_none());
}

#[test]
fn a_file_without_views_says_nothing_of_them() {
    let file = written(Vec::new()).unwrap();
    assert!(open(&file).unwrap().views().is_empty());
    assert!(!String::from_utf8_lossy(&file).contains("views"));
}

#[test]
fn a_writer_refuses_what_a_reader_would() {
    let part = |name: &str| View { parts: BTreeMap::from([("codes".into(), name.into())]), ..view("weight") };
    let many = (0..65_537).map(|i| (i.to_string(), "codes".to_owned())).collect();
    let wrong = [
        vec![view("codes")],
        vec![view("weight"), view("weight")],
        vec![part("missing")],
        // Not even a view that exists.
        vec![view("other"), part("other")],
        vec![View { parts: BTreeMap::new(), ..view("weight") }],
        vec![View { parts: many, ..view("weight") }],
        vec![View { shape: vec![1 << 32, 1 << 32], ..view("weight") }],
        vec![View { shape: vec![1 << 62], ..view("weight") }],
        vec![View { shape: vec![1; 65], ..view("weight") }],
        vec![View { name: "n".repeat(65_537), ..view("weight") }],
    ];
    for views in wrong {
        let error = written(views.clone()).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{views:?}: {error}");
    }
    // A type of a later version has no length here.
    written(vec![View { dtype: "F3".into(), shape: vec![1 << 62], ..view("weight") }]).unwrap();
}

#[test]
fn the_manifest_is_read_by_the_rules() {
    let sound = json!({"generator": "g", "tensors": [], "views": [serde_json::to_value(view("weight")).unwrap()]});
    let parse = |json: &str| Manifest::parse(json.as_bytes(), &Limits::default());
    assert_eq!(parse(&sound.to_string()).unwrap().views, [view("weight")]);
    let change = |key: &str, value: Value| {
        let mut json = sound.clone();
        json["views"][0][key] = value;
        parse(&json.to_string())
    };
    let changes = [
        ("name", json!(1)),
        ("dtype", Value::Null),
        ("shape", json!([-1])),
        ("shape", json!([1.0])),
        ("layout", json!({})),
        ("params", json!([])),
        ("parts", json!(["codes"])),
        ("parts", json!({"codes": 1})),
        ("parts", json!({})),
    ];
    for (key, value) in changes {
        let error = change(key, value.clone()).unwrap_err();
        assert_eq!(error.code(), Code::Malformed, "{key} = {value}: {error}");
    }
    for text in [r#""layout""#, r#""parts""#, r#""dtype""#] {
        assert_eq!(parse(&sound.to_string().replace(text, "\"other\"")).unwrap_err().code(), Code::Malformed, "{text}");
    }
    let twice = sound.to_string().replace(r#"{"bits":4}"#, r#"{"bits":4,"bits":4}"#);
    assert_eq!(parse(&twice).unwrap_err().code(), Code::Malformed);
    let twice = sound.to_string().replace(r#""codes":"codes""#, r#""codes":"codes","codes":"codes""#);
    assert_eq!(parse(&twice).unwrap_err().code(), Code::Malformed);
    let limits = Limits { tensors: 0, ..Limits::default() };
    assert_eq!(Manifest::parse(sound.to_string().as_bytes(), &limits).unwrap_err().code(), Code::Limit);
}
