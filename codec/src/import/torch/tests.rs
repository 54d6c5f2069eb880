//! Files that PyTorch has written, and files that try things.

use std::ops::Range;

use cmz_format::Code;
use serde_json::{Value, json};

use super::{Contents, pickle, read};
use crate::Archive;
use crate::convert::{CompressOptions, DecompressOptions, compress_torch, decompress};
use crate::import::quantized::of_torch;
use crate::safetensors::Entry;

/// Written by PyTorch 2.15, as `fixtures/README.md` says.
macro_rules! fixture {
    ($name:literal) => {
        include_bytes!(concat!("fixtures/", $name, ".pt")).to_vec()
    };
}

/// What SpQR's own evaluator makes of a fixture.
macro_rules! expected {
    ($name:literal) => {
        include_bytes!(concat!("fixtures/", $name, ".bin"))
    };
}

fn entries(file: &Vec<u8>) -> Vec<Entry> {
    read(file).unwrap_or_else(|e| panic!("{e}")).header.tensors
}

/// Name, type, shape and bytes of each tensor, by name.
fn tensors(file: &Vec<u8>) -> Vec<(String, String, Vec<u64>, Vec<u8>)> {
    let of = |entry: Entry| {
        let bytes = file[entry.range.start as usize..entry.range.end as usize].to_vec();
        (entry.name, entry.dtype, entry.shape, bytes)
    };
    let mut all: Vec<_> = entries(file).into_iter().map(of).collect();
    all.sort();
    all
}

fn floats(range: Range<u16>) -> Vec<u8> {
    range.flat_map(|i| f32::from(i).to_le_bytes()).collect()
}

#[test]
fn a_state_dict_of_every_type() {
    let all = tensors(&fixture!("state"));
    let of = |name: &str| {
        let found = all.iter().find(|(other, ..)| other == name);
        found.map(|(_, dtype, shape, bytes)| (dtype.as_str(), shape.as_slice(), bytes.as_slice())).expect("a tensor")
    };
    let names: Vec<_> = all.iter().map(|(name, ..)| name.as_str()).collect();
    let expected = ["bf", "bytes", "codes", "embed.weight", "empty", "flag", "fp8", "half", "long", "scalar"];
    assert_eq!(names, expected, "tied weights come once");
    assert_eq!(of("embed.weight"), ("F32", &[6, 4][..], &floats(0..24)[..]));
    assert_eq!(of("bytes"), ("U8", &[7][..], &[0, 1, 2, 3, 4, 5, 6][..]));
    assert_eq!(of("codes"), ("I16", &[2, 2][..], &[0xfd, 0xff, 4, 0, 5, 0, 0xff, 0x7f][..]));
    assert_eq!(of("long"), ("I64", &[1][..], &(1u64 << 40).to_le_bytes()[..]));
    assert_eq!(of("flag"), ("BOOL", &[2][..], &[1, 0][..]));
    assert_eq!(of("fp8"), ("F8_E4M3", &[4][..], &[0, 0x38, 0x40, 0x44][..]));
    assert_eq!(of("scalar"), ("F64", &[][..], &2.5f64.to_le_bytes()[..]));
    assert_eq!(of("empty"), ("F32", &[0, 3][..], &[][..]));
    assert_eq!((of("bf").0, of("bf").1, of("bf").2[..2].to_vec()), ("BF16", &[3, 4][..], vec![0xa0, 0xc0]));
    assert_eq!((of("half").0, of("half").2[18..].to_vec()), ("F16", vec![0x80, 0x48]));
}

#[test]
fn dicts_and_lists_inside_each_other() {
    let all = tensors(&fixture!("nested"));
    let names: Vec<_> =
        all.iter().map(|(name, dtype, shape, _)| (name.as_str(), dtype.as_str(), shape.len())).collect();
    let expected =
        [("groups.0", "I8", 2), ("groups.1", "F32", 1), ("model.bias", "F32", 1), ("model.weight", "F32", 2)];
    assert_eq!(names, expected);
    let all = tensors(&fixture!("offset"));
    assert_eq!((&all[0].3, &all[1].3), (&floats(1..3), &floats(2..4)));
    assert_eq!(tensors(&fixture!("parameter"))[0].3, [1f32.to_le_bytes(); 2].concat());
    assert_eq!(tensors(&fixture!("proto4"))[0].0, "a");
    let sparse = tensors(&fixture!("sparse"));
    assert_eq!((sparse[0].0.as_str(), &sparse[0].2, sparse[1].0.as_str()), ("a.indices", &vec![2, 3], "a.values"));
}

#[test]
fn what_is_no_dict_of_tensors_is_refused() {
    let refused = [
        (fixture!("module"), "torch.nn.modules.linear.Linear, which is no part"),
        (fixture!("strided"), "not contiguous"),
        (fixture!("overlap"), "it shares bytes with tensor"),
        (fixture!("legacy"), "no zip archive"),
        (b"PK".to_vec(), "no zip archive"),
        (Vec::new(), "no zip archive"),
    ];
    for (file, why) in refused {
        let error = read(&file).expect_err(why);
        assert!(error.code() == Code::BadSource && error.to_string().contains(why), "{error}, not {why}");
    }
}

#[test]
fn files_come_back_byte_for_byte() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name);
    for file in [fixture!("state"), fixture!("nested"), fixture!("sparse"), fixture!("spqr")] {
        std::fs::write(path("a.pt"), &file).expect("a file");
        compress_torch(&path("a.pt"), &path("a.cmz"), &options(), &()).expect("a conversion");
        let archive = Archive::open(&path("a.cmz")).expect("a file");
        assert_eq!(archive.source().expect("a source").kind, "torch");
        for (name, dtype, shape, bytes) in tensors(&file) {
            assert_eq!(archive.read(&name).expect("a tensor"), bytes);
            let tensor = &archive.tensors()[archive.find(&name).expect("a tensor")];
            assert_eq!((&tensor.dtype, &tensor.shape), (&dtype, &shape));
        }
        let options = DecompressOptions { threads: 1, replace: true };
        decompress(&archive, &path("b.pt"), &options, &()).expect("a restoration");
        assert!(std::fs::read(path("b.pt")).expect("a file") == file);
    }
}

fn options() -> CompressOptions {
    CompressOptions {
        encode: Default::default(),
        threads: 1,
        io: Default::default(),
        replace: true,
        verify: true,
        bases: Vec::new(),
        quantizer: None,
    }
}

#[test]
fn layers_that_spqr_saves_stand_for_weights() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name);
    for (file, name, dense, shape, dtype) in [
        (fixture!("spqr"), "self_attn.q_proj.weight", &expected!("spqr")[..], [32, 40], "F16"),
        (fixture!("spqr_one_level"), "self_attn.q_proj.weight", expected!("spqr_one_level"), [6, 24], "BF16"),
    ] {
        std::fs::write(path("a.pt"), &file).expect("a file");
        let (_, found) = compress_torch(&path("a.pt"), &path("a.cmz"), &options(), &()).expect("a conversion");
        assert_eq!(found.notes, Vec::<String>::new());
        let archive = Archive::open(&path("a.cmz")).expect("a file");
        let [view] = archive.views() else { panic!("{:?}", archive.views()) };
        assert_eq!((&*view.name, &*view.shape, &*view.dtype), (name, &shape[..], dtype));
        assert!(archive.read_view(name).expect("a view") == dense, "not what the evaluator makes of it");
        let back = DecompressOptions { threads: 1, replace: true };
        decompress(&archive, &path("b.pt"), &back, &()).expect("a restoration");
        assert!(std::fs::read(path("b.pt")).expect("a file") == file);
    }
}

#[test]
fn a_layer_that_contradicts_itself_has_no_view() {
    let file = fixture!("spqr");
    let Contents { header, attributes } = read(&file).expect("a file");
    let views = |key: &str, value: Value| {
        let attributes = attributes.clone().into_iter().chain([(key.to_owned(), value)]).collect();
        let found = of_torch(&header, attributes, &file);
        assert_eq!(found.views.len() + found.notes.len(), 1, "{found:?}");
        found.notes.first().cloned().unwrap_or_default()
    };
    assert_eq!(views("blocksize", json!(64)), "");
    assert!(views("groupsize", json!(8)).contains("parts"));
    assert!(views("groupsize", json!(0)).contains("size of the groups"));
    assert!(views("groupsize", json!(-1)).contains("size of the groups"));
    assert!(views("keep_last_columns", json!(8)).contains("not quantized"));
    assert!(views("weight_shape", json!([40, 32])).contains("another shape"));
    let without = |key: &str| {
        let attributes = attributes.clone().into_iter().filter(|(name, _)| name != key).collect();
        of_torch(&header, attributes, &file).views.len()
    };
    assert_eq!((without("weight_shape"), without("groupsize"), without("sublayer_name")), (0, 0, 1));
    for (name, value, why) in
        [("perm", 40u64, "column 40 of 40"), ("outliers_matrix.indices", 32, "an outlier in row 32")]
    {
        let mut changed = file.clone();
        let entry = header.tensors.iter().find(|entry| entry.name == name).expect("a tensor");
        let len = if entry.dtype == "I64" { 8 } else { 4 };
        changed[entry.range.start as usize..][..len].copy_from_slice(&value.to_le_bytes()[..len]);
        let notes = of_torch(&header, attributes.clone(), &changed).notes;
        assert!(notes.iter().any(|note| note.contains(why)), "{notes:?}, not {why:?}");
    }
    let state = fixture!("state");
    let Contents { header, attributes } = read(&state).expect("a file");
    assert_eq!(of_torch(&header, attributes, &state).views.len(), 0);
}

#[test]
fn changed_bytes_never_do_harm() {
    let file = fixture!("nested");
    for at in 0..file.len() {
        for bit in [0, 3, 7] {
            let mut changed = file.clone();
            changed[at] ^= 1 << bit;
            // Read or refused, but within the file.
            for entry in read(&changed).map(|contents| contents.header.tensors).unwrap_or_default() {
                assert!(entry.range.end <= changed.len() as u64);
            }
        }
        assert!(read(&file[..at].to_vec()).is_err(), "cut at {at}");
    }
}

/// A pickle of these instructions.
fn run(instructions: &[&[u8]]) -> Result<pickle::Pickle, String> {
    pickle::read(&[&[0x80, 2][..], &instructions.concat(), b"."].concat()).map_err(|e| e.to_string())
}

#[test]
fn pickles_that_try_things_are_refused() {
    let refused: [(&[&[u8]], &str); 16] = [
        (&[b"cos\nsystem\n", b"X\x02\0\0\0ls", &[0x85], b"R"], "os.system, which is no part"),
        (&[b"cbuiltins\neval\n"], "builtins.eval"),
        (&[b"c__builtin__\ngetattr\n"], "__builtin__.getattr"),
        (&[b"ctorch\nload\n"], "torch.load"),
        (&[b"ctorch\n_utils._rebuild_tensor_v2\n"], "which is no part"),
        (&[&[0x8c, 2], b"os", &[0x8c, 6], b"system", &[0x93]], "os.system"),
        (&[b"i", b"os\nsystem\n"], "instruction 0x69"),
        (&[b"ccollections\nOrderedDict\n", &[0x81]], "instruction 0x81"),
        (&[&[0x82, 1]], "instruction 0x82"),
        (&[b"ccollections\nOrderedDict\n", b"K\x01", &[0x85], b"R"], "other arguments"),
        (&[b"ctorch._utils\n_rebuild_tensor_v2\n", b")", b"R"], "other arguments"),
        (&[b"K\x01", b")", b"R"], "a call of what is no function"),
        (&[b"h\x07"], "has not made"),
        (&[b"]", b"(", b"s"], "takes more than"),
        (&[b"K\x01", b"K\x02", b"a"], "no list"),
        (&[b"]", b"}", b"b"], "attributes of what is no dict"),
    ];
    for (instructions, why) in refused {
        let error = run(instructions).expect_err(why);
        assert!(error.contains(why), "{error}, not {why:?}");
    }
    for cut in [&b""[..], b"\x80", b"\x80\x02", b"\x80\x02X\xff\xff\xff\xff", b"\x80\x02ctorch", b"\x80\x09."] {
        assert!(pickle::read(cut).is_err());
    }
}

/// A list in itself, and lists that double: what leads to the tensors is bounded.
#[test]
fn endless_pickles_end() {
    let archive = |pickle: &[u8]| {
        let mut file = [b"PK\x03\x04", &[0; 22][..], &8u16.to_le_bytes(), &[0; 2], b"data.pkl", pickle].concat();
        let (start, len) = (file.len() as u32, (pickle.len() as u32).to_le_bytes());
        let entry = [b"PK\x01\x02", &[0; 16][..], &len, &len, &8u16.to_le_bytes(), &[0; 16], b"data.pkl"].concat();
        let size = (entry.len() as u32).to_le_bytes();
        file.extend(entry);
        file.extend([b"PK\x05\x06", &[0; 4][..], &[1, 0, 1, 0], &size, &start.to_le_bytes(), &[0; 2]].concat());
        file
    };
    let code = |pickle: &[u8]| read(&archive(pickle)).map(drop).map_err(|e| e.code());
    assert_eq!(code(b"\x80\x02}."), Ok(()));
    assert_eq!(code(b"\x80\x02]q\0h\0a."), Err(Code::Limit));
    let mut doubling = b"\x80\x02]q\0".to_vec();
    for i in 0..30u8 {
        doubling.extend([b']', b'q', i + 1, b'(', b'h', i, b'h', i, b'e']);
    }
    doubling.push(b'.');
    assert_eq!(code(&doubling), Err(Code::Limit));
}
