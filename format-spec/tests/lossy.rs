//! What the manifest says about tensors that were rounded.

use std::collections::BTreeMap;

use cmz_format::{
    Code, EncodedBlock, Encoding, Header, Index, Limits, Lossy, Manifest, PlannedSegment, Result, Tensor, Writer,
    codec_id,
};

fn tensor(name: &str) -> Tensor {
    Tensor {
        name: name.to_owned(),
        dtype: "U8".to_owned(),
        shape: vec![1],
        block_elements: 1,
        encoding: Encoding::of_streams("parts", [("data", vec!["raw".to_owned()])]),
    }
}

fn lossy(name: &str, output_error_ppb: Option<u64>) -> Lossy {
    Lossy { tensor: name.to_owned(), recipe: "int4:group=128".to_owned(), error_ppb: 7, output_error_ppb }
}

/// A file of the tensors a, b and c.
fn file(lossy: Vec<Lossy>) -> Result<Vec<u8>> {
    let plan = ["a", "b", "c"].map(|name| PlannedSegment::Tensor { tensor: tensor(name), byte_len: 1, shared: false });
    let header = Header { optional_features: 0, fingerprint: [0; 16] };
    let mut writer = Writer::new(Vec::new(), &header, plan.to_vec())?;
    for _ in &plan {
        writer.descriptor()?;
        writer.data(&EncodedBlock::single(codec_id::RAW, vec![1], &[1]))?;
    }
    lossy.into_iter().for_each(|lossy| writer.lossy(lossy));
    writer.finish("test", None, BTreeMap::new())
}

#[test]
fn what_is_written_is_read() {
    let all = vec![lossy("a", None), lossy("c", Some(9))];
    let file = file(all.clone()).unwrap();
    let read = |offset: u64, buffer: &mut [u8]| {
        buffer.copy_from_slice(&file[offset as usize..][..buffer.len()]);
        Ok(())
    };
    let index = Index::read(file.len() as u64, &Limits::default(), read).unwrap();
    assert_eq!(index.manifest().lossy, all);
}

#[test]
fn a_writer_refuses_what_a_reader_would() {
    let code = |all| file(all).map(drop).map_err(|e| e.code());
    assert_eq!(code(vec![lossy("b", None), lossy("c", None)]), Ok(()));
    assert_eq!(code(vec![lossy("c", None), lossy("b", None)]), Err(Code::InvalidArgument));
    assert_eq!(code(vec![lossy("b", None), lossy("b", None)]), Err(Code::InvalidArgument));
    assert_eq!(code(vec![lossy("d", None)]), Err(Code::InvalidArgument));
    assert_eq!(code(vec![Lossy { recipe: String::new(), ..lossy("a", None) }]), Err(Code::InvalidArgument));
}

#[test]
fn manifests_that_break_a_rule() {
    let manifest = Manifest {
        tensors: ["a", "b"].map(tensor).to_vec(),
        lossy: vec![lossy("a", Some(5)), lossy("b", None)],
        ..Manifest::default()
    };
    let json = String::from_utf8(manifest.to_json()).unwrap();
    assert_eq!(Manifest::parse(json.as_bytes(), &Limits::default()).unwrap(), manifest);
    for (from, to) in [
        ("\"tensor\":\"b\"", "\"tensor\":\"a\""),
        ("\"tensor\":\"a\"", "\"tensor\":\"c\""),
        ("\"tensor\":\"a\"", "\"tensor\":\"b\""),
        ("\"tensor\":\"a\",", ""),
        ("\"recipe\":\"int4:group=128\"", "\"recipe\":\"\""),
        ("\"recipe\":\"int4:group=128\"", "\"recipe\":4"),
        ("\"error_ppb\":7", "\"error_ppb\":-7"),
        ("\"error_ppb\":7", "\"error_ppb\":7.0"),
        ("\"output_error_ppb\":5", "\"output_error_ppb\":null"),
        ("\"lossy\":[{", "\"lossy\":[[\"a\",\"r\",1],{"),
        ("\"lossy\":[", "\"lossy\":null,\"x\":["),
    ] {
        assert!(json.contains(from), "{from}");
        let broken = json.replacen(from, to, 1);
        let result = Manifest::parse(broken.as_bytes(), &Limits::default());
        assert_eq!(result.map(drop).map_err(|e| e.code()), Err(Code::Malformed), "{from} became {to}");
    }
}
