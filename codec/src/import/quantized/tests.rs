//! Generated quantized checkpoints, there and back.

use std::fs;
use std::path::Path;

use cmz_format::{Code, Dtype};
use serde_json::{Map, Value, json};

use crate::Archive;
use crate::checkpoint::{Plan, compress, decompress, plan_compress, plan_decompress, plan_quantized};
use crate::choose::EncodeOptions;
use crate::convert::{CompressOptions, DecompressOptions};
use crate::io::IoMode;
use crate::view::generator::{self, BF16, F16, F32, Made, PackQuantized, Part, Rng};

/// A checkpoint in a folder.
struct Checkpoint {
    dir: tempfile::TempDir,
    tensors: Vec<(String, Part)>,
}

impl Checkpoint {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a folder"), tensors: Vec::new() }
    }

    /// Of one module `m`.
    fn of(made: &Made) -> Self {
        Self::new().module("m", made)
    }

    fn module(mut self, module: &str, made: &Made) -> Self {
        self.tensors.extend(made.parts.iter().map(|part| (format!("{module}.{}", part.suffix), part.clone())));
        self
    }

    fn change(mut self, name: &str, change: impl FnOnce(&mut Part)) -> Self {
        change(&mut self.tensors.iter_mut().find(|(other, _)| other == name).expect("a tensor").1);
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.tensors.retain(|(other, _)| other != name);
        self
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes the tensors, and a `config.json` with this quantization_config.
    fn write(&self, quantization: Value) {
        let config = json!({"torch_dtype": "bfloat16", "hidden_size": 48, "quantization_config": quantization});
        fs::write(self.path().join("config.json"), config.to_string()).expect("a file");
        let (mut header, mut data) = (Map::new(), Vec::new());
        for (name, part) in &self.tensors {
            let offsets = [data.len(), data.len() + part.bytes.len()];
            header.insert(name.clone(), json!({"dtype": part.dtype, "shape": part.shape, "data_offsets": offsets}));
            data.extend_from_slice(&part.bytes);
        }
        let header = Value::Object(header).to_string();
        let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
        fs::write(self.path().join("model.safetensors"), file).expect("a file");
    }

    fn plan(&self, quantization: Value) -> Plan {
        self.write(quantization);
        plan_compress(self.path(), Some(&self.path().join("out")), true).expect("a plan")
    }

    /// Compresses, restores, and returns the file.
    fn compress(&self, quantization: Value) -> Archive {
        let plan = self.plan(quantization);
        assert_eq!(plan.notes, Vec::<String>::new());
        let options = CompressOptions {
            encode: EncodeOptions::default(),
            threads: 1,
            io: IoMode::Auto,
            replace: true,
            verify: true,
            bases: Vec::new(),
            quantizer: None,
        };
        compress(&plan, &options, &()).expect("a conversion");
        let back = plan_decompress(&self.path().join("out"), Some(&self.path().join("back")), true).expect("a plan");
        let options = DecompressOptions { threads: 1, replace: true };
        decompress(&back, crate::OpenOptions::default(), &options, &()).expect("a restoration");
        let read = |folder: &str, name: &str| fs::read(self.path().join(folder).join(name)).expect("a file");
        for name in ["model.safetensors", "config.json"] {
            assert!(read("", name) == read("back", name), "{name}");
        }
        Archive::open(&self.path().join("out/model.cmz")).expect("a file")
    }

    /// That there is this view, and nothing else.
    fn check(&self, quantization: Value, name: &str, made: &Made) -> Archive {
        let archive = self.compress(quantization);
        let names: Vec<_> = archive.views().iter().map(|view| view.name.as_str()).collect();
        assert_eq!(names, [name]);
        check(&archive, name, made);
        archive
    }

    /// That there is no view, for this reason.
    fn unclear(&self, quantization: Value, why: &str) {
        let plan = self.plan(quantization);
        assert!(plan.views.iter().all(Vec::is_empty), "{:?}", plan.views);
        assert!(plan.notes.iter().any(|note| note.contains(why)), "{:?}, not {why:?}", plan.notes);
    }
}

fn check(archive: &Archive, name: &str, made: &Made) {
    archive.check_view(name).expect("a readable view");
    assert!(archive.read_view(name).expect("a view") == made.dense, "{name}");
    let view = archive.index().find_view(name).expect("a view");
    assert_eq!((view.dtype.as_str(), &view.shape), (made.dtype, &made.shape));
    let row = made.dense.len() / made.shape[0] as usize;
    assert!(archive.read_view_rows(name, 1..3).expect("rows") == made.dense[row..3 * row], "{name}");
    assert_eq!(archive.read_view_rows(name, 1..1 << 40).map_err(|e| e.code()), Err(Code::InvalidArgument));
}

fn gptq_config(bits: usize, group: i64, more: Value) -> Value {
    let mut config = json!({"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": false, "sym": true});
    config.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    config
}

#[test]
fn gptq_of_both_versions() {
    for bits in [2, 3, 4, 8] {
        for (version, minus_one) in [(json!({}), true), (json!({"checkpoint_format": "gptq_v2"}), false)] {
            let made = generator::gptq(&mut Rng(bits as u64), (64, 96), bits, 32, minus_one, false);
            Checkpoint::of(&made).check(gptq_config(bits, 32, version.clone()), "m.weight", &made);
            // Without the index, group_size says as much.
            Checkpoint::of(&made).without("m.g_idx").check(gptq_config(bits, 32, version), "m.weight", &made);
        }
    }
    let made = generator::gptq(&mut Rng(3), (32, 64), 3, 64, true, false);
    Checkpoint::of(&made).without("m.g_idx").check(gptq_config(3, -1, json!({})), "m.weight", &made);
    // Whatever is beside it stays a tensor.
    let made = generator::gptq(&mut Rng(3), (32, 64), 4, 16, true, true);
    let norm = Made { parts: vec![Part { suffix: "bias", ..made.parts[2].clone() }], ..made.clone() };
    let archive = Checkpoint::of(&made).module("norm", &norm).compress(gptq_config(4, 16, json!({"desc_act": true})));
    check(&archive, "m.weight", &made);
    assert_eq!((archive.views().len(), archive.tensors().len()), (1, 5));
}

#[test]
fn gptq_with_modules_of_their_own() {
    let rng = &mut Rng(11);
    let (four, eight) =
        (generator::gptq(rng, (32, 64), 4, 32, true, false), generator::gptq(rng, (32, 64), 8, 64, true, false));
    let checkpoint = Checkpoint::new().module("layers.0.up", &four).module("layers.0.down", &eight);
    let dynamic = json!({"dynamic": {"+:.*\\.down": {"bits": 8, "group_size": 64}}});
    let archive = checkpoint.compress(gptq_config(4, 32, dynamic));
    check(&archive, "layers.0.up.weight", &four);
    check(&archive, "layers.0.down.weight", &eight);
    let plan = checkpoint.plan(gptq_config(4, 32, json!({})));
    assert_eq!(plan.views[0].len(), 1, "{:?}", plan.views);
    assert!(plan.notes[0].contains("layers.0.down.weight: not what the configuration says"), "{:?}", plan.notes);
    let excluded = json!({"dynamic": {"-:.*up": {}, ".*down": {"bits": 8}}});
    assert_eq!(checkpoint.plan(gptq_config(4, 32, excluded)).views[0].len(), 1);
    // Two rules that say different things: their order would decide.
    let twice = json!({"dynamic": {"layers": {"bits": 4}, ".*down": {"bits": 8}, ".*up": {"bits": 8}}});
    assert_eq!(checkpoint.plan(gptq_config(4, 32, twice)).views[0].len(), 0);
    checkpoint.unclear(gptq_config(4, 32, json!({"dynamic": {"(": {}}})), "a pattern of dynamic");
}

#[test]
fn gptq_that_is_not_understood_stays_as_it_is() {
    let made = generator::gptq(&mut Rng(5), (32, 64), 4, 32, true, true);
    let whole = || Checkpoint::of(&made);
    let config = |more| gptq_config(4, 32, more);
    whole().unclear(config(json!({"checkpoint_format": "gptq_p"})), "checkpoint_format \"gptq_p\"");
    whole().unclear(config(json!({"pack_dtype": "int64"})), "words of 32 bits");
    whole().without("m.g_idx").unclear(config(json!({"desc_act": true})), "no g_idx");
    whole().without("m.qzeros").unclear(config(json!({})), "not in this file");
    whole().unclear(config(json!({"format": "marlin"})), "checkpoint_format \"marlin\"");
    // Nine words of eight codes have room for 65 to 72 columns.
    let ragged = generator::gptq(&mut Rng(5), (32, 70), 4, 35, true, false);
    Checkpoint::of(&ragged).check(config(json!({})), "m.weight", &ragged);
    Checkpoint::of(&ragged).without("m.g_idx").unclear(gptq_config(4, 35, json!({})), "does not say how it is stored");
    whole().unclear(gptq_config(3, 32, json!({})), "not what the configuration says");
    whole().change("m.scales", |part| part.shape.reverse()).unclear(config(json!({})), "not what the configuration");
    whole().unclear(json!({"quant_method": "quark"}), "quark");
    whole().unclear(json!({"bits": 4}), "does not name its quant_method");
    fs::write(whole().path().join("config.json"), "{").expect("a file");
    // A configuration that is no JSON is noted, and the tensors are stored.
    let checkpoint = whole();
    checkpoint.write(config(json!({})));
    fs::write(checkpoint.path().join("config.json"), "{").expect("a file");
    let plan = plan_compress(checkpoint.path(), Some(&checkpoint.path().join("out")), true).expect("a plan");
    assert!(plan.notes[0].contains("no views: the configuration"), "{:?}", plan.notes);
}

/// Values that lead nowhere make a view that cannot be read: there is none, and the tensors are stored.
#[test]
fn places_that_lead_nowhere_have_no_view() {
    let refused = |made: &Made, config: &Value, tensor: &str, at: usize, bytes: &[u8], why: &str| {
        let change = |part: &mut Part| part.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        let whole = Checkpoint::of(made);
        assert_eq!(whole.plan(config.clone()).views.concat().len(), 1, "{tensor} as it was");
        whole.change(&format!("m.{tensor}"), change).unclear(config.clone(), &format!("no view of m.weight: {why}"));
    };
    let lies = |why: &str| format!("not what the configuration says: {why}");
    let gptq = generator::gptq(&mut Rng(5), (32, 64), 4, 32, true, true);
    let config = gptq_config(4, 32, json!({"desc_act": true}));
    for (group, text) in [(2i32, "2"), (-1, "-1"), (i32::MAX, "2147483647")] {
        let why = lies(&format!("column 1 is in group {text}, and there are 2"));
        refused(&gptq, &config, "g_idx", 4, &group.to_le_bytes(), &why);
    }
    let form = PackQuantized { bits: 4, group: 32, dense: true, asymmetric: false, act_order: true, scale: BF16 };
    let packed = generator::pack_quantized(&mut Rng(1), (40, 96), form);
    let why = lies("column 0 is in group 3, and there are 3");
    refused(&packed, &pack_config(form), "weight_g_idx", 0, &3i32.to_le_bytes(), &why);
    let spqr = generator::spqr(&mut Rng(61), (48, 48), false, true);
    let config = json!({"quant_method": "spqr", "bits": 3, "beta1": 16, "beta2": 16});
    refused(&spqr, &config, "in_perm", 0, &48u16.to_le_bytes(), &lies("column 48 of 48 twice, or out of range"));
    refused(&spqr, &config, "col_vals", 0, &48u16.to_le_bytes(), &lies("an outlier in column 48 of 48"));
    refused(&spqr, &config, "row_offsets", 0, &[1], &lies("the offsets of outliers"));
}

#[test]
fn older_configurations_beside_the_model() {
    let gptq = generator::gptq(&mut Rng(5), (32, 64), 4, 32, true, false);
    let awq = generator::awq(&mut Rng(5), (32, 64), 32);
    let old = [
        (&gptq, "quantize_config.json", json!({"bits": 4, "group_size": 32, "desc_act": false})),
        (&awq, "quant_config.json", json!({"zero_point": true, "q_group_size": 32, "w_bit": 4, "version": "GEMM"})),
    ];
    for (made, name, config) in old {
        let checkpoint = Checkpoint::of(made);
        checkpoint.write(Value::Null);
        fs::write(checkpoint.path().join(name), config.to_string()).expect("a file");
        let plan = plan_compress(checkpoint.path(), Some(&checkpoint.path().join("out")), true).expect("a plan");
        assert_eq!((plan.views[0].len(), &plan.notes), (1, &Vec::new()), "{name}");
    }
}

/// Where configurations lie in others, or have another name.
#[test]
fn configurations_in_other_places() {
    let form = PackQuantized { bits: 4, group: 32, dense: true, asymmetric: false, act_order: false, scale: BF16 };
    let packed = generator::pack_quantized(&mut Rng(1), (40, 96), form);
    let names = ("weight", "weight_scale_inv");
    let fp8 =
        Made { dtype: "F16", ..generator::block_scaled(&mut Rng(2), &[20, 30], (128, 128), "F8_E4M3", F32, names) };
    let of_fp8 = json!({"quant_method": "fp8", "weight_block_size": [128, 128]});
    let text = json!({"torch_dtype": "float16", "quantization_config": of_fp8});
    for (made, config, dtype) in [
        (&packed, json!({"compression_config": pack_config(form)}), "BF16"),
        (&fp8, json!({"torch_dtype": "float32", "text_config": text}), "F16"),
        (
            &fp8,
            json!({"text_config": {"quantization_config": null}, "torch_dtype": "float16", "quantization_config": of_fp8}),
            "F16",
        ),
    ] {
        let checkpoint = Checkpoint::of(made);
        checkpoint.write(Value::Null);
        fs::write(checkpoint.path().join("config.json"), config.to_string()).expect("a file");
        let plan = plan_compress(checkpoint.path(), Some(&checkpoint.path().join("out")), true).expect("a plan");
        assert_eq!((plan.views[0].len(), &plan.notes), (1, &Vec::new()), "{config}");
        assert_eq!(plan.views[0][0].dtype, dtype, "{config}");
    }
}

#[test]
fn awq_for_gemm() {
    let made = generator::awq(&mut Rng(6), (48, 128), 32);
    let config = |version: &str| json!({"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": true, "version": version});
    Checkpoint::of(&made).check(config("gemm"), "m.weight", &made);
    Checkpoint::of(&made).unclear(config("gemv"), "version \"gemv\"");
    let model = json!({"quant_method": "awq", "bits": 4, "group_size": 32, "checkpoint_format": "gemv_fast"});
    Checkpoint::of(&made).unclear(model, "version \"gemv_fast\"");
    let whole = generator::awq(&mut Rng(6), (48, 128), 128);
    Checkpoint::of(&whole).check(json!({"quant_method": "awq", "bits": 4, "group_size": -1}), "m.weight", &whole);
}

fn packed_config(weights: Value) -> Value {
    let group = json!({"targets": ["Linear"], "weights": weights});
    json!({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": group}})
}

fn pack_config(form: PackQuantized) -> Value {
    packed_config(json!({
        "num_bits": form.bits, "type": "int", "symmetric": !form.asymmetric, "strategy": "group", "group_size": form.group,
    }))
}

#[test]
fn compressed_tensors_of_integers() {
    let form = PackQuantized { bits: 4, group: 32, dense: true, asymmetric: false, act_order: false, scale: BF16 };
    for bits in 2..=8 {
        for (dense, asymmetric) in [(true, false), (true, true), (false, true)] {
            let form = PackQuantized { bits, dense, asymmetric, act_order: asymmetric, ..form };
            let made = generator::pack_quantized(&mut Rng(bits as u64), (40, 96), form);
            let archive = Checkpoint::of(&made).check(pack_config(form), "m.weight", &made);
            let packing = if dense || 32 % bits == 0 { "dense" } else { "padded" };
            assert_eq!(archive.views()[0].params["packing"], packing);
        }
    }
    // 3 bits: ten codes take one word in both packings.
    let short = PackQuantized { bits: 3, group: 10, ..form };
    let made = generator::pack_quantized(&mut Rng(1), (40, 10), short);
    Checkpoint::of(&made).unclear(pack_config(short), "fit two ways");
    let channel = PackQuantized { group: 96, ..form };
    let made = generator::pack_quantized(&mut Rng(1), (40, 96), channel);
    let config = packed_config(json!({"num_bits": 4, "type": "int", "symmetric": true, "strategy": "channel"}));
    Checkpoint::of(&made).check(config, "m.weight", &made);
    // −1 in the index says that there is none.
    let made = generator::pack_quantized(&mut Rng(1), (40, 96), PackQuantized { act_order: true, ..form });
    let plain = generator::pack_quantized(&mut Rng(1), (40, 96), form);
    let mut parts = plain.parts.clone();
    parts.push(Part { bytes: vec![0xff; 4 * 96], ..made.parts[3].clone() });
    let with_index = Made { parts, ..plain };
    Checkpoint::of(&with_index).check(pack_config(form), "m.weight", &with_index);
}

#[test]
fn compressed_tensors_with_several_groups() {
    let form = |bits| PackQuantized { bits, group: 32, dense: true, asymmetric: false, act_order: false, scale: F16 };
    let rng = &mut Rng(9);
    let four = generator::pack_quantized(rng, (8, 64), form(4));
    let eight = generator::pack_quantized(rng, (8, 64), form(8));
    let nvfp4 = generator::nvfp4(rng, (8, 64), true);
    let group = |weights: Value, format: &str| json!({"targets": [], "weights": weights, "format": format});
    let int =
        |bits: u32| json!({"num_bits": bits, "type": "int", "symmetric": true, "strategy": "group", "group_size": 32});
    let float =
        json!({"num_bits": 4, "type": "float", "symmetric": true, "strategy": "tensor_group", "group_size": 16});
    let groups = json!({
        "a": group(int(4), "pack-quantized"), "b": group(int(8), "pack-quantized"), "c": group(float, "nvfp4-pack-quantized"),
    });
    let config = json!({"quant_method": "compressed-tensors", "format": "mixed-precision", "config_groups": groups});
    let checkpoint = Checkpoint::new().module("a", &four).module("b", &eight).module("c", &nvfp4);
    let archive = checkpoint.compress(config.clone());
    for (name, made) in [("a.weight", &four), ("b.weight", &eight), ("c.weight", &nvfp4)] {
        check(&archive, name, made);
    }
    let mut sparse = config;
    sparse["sparsity_config"] = json!({"format": "sparse-24-bitmask"});
    checkpoint.unclear(sparse, "sparse");
}

#[test]
fn floats_of_compressed_tensors() {
    let rng = &mut Rng(21);
    let config = |format: &str, weights: Value| {
        let group = json!({"targets": ["Linear"], "weights": weights});
        json!({"quant_method": "compressed-tensors", "format": format, "config_groups": {"group_0": group}})
    };
    let weights = |bits: u32, kind: &str, strategy: &str| json!({"num_bits": bits, "type": kind, "strategy": strategy});
    let fp4 = |group: u32| json!({"num_bits": 4, "type": "float", "strategy": "group", "group_size": group});
    let nvfp4 = generator::nvfp4(rng, (8, 64), true);
    Checkpoint::of(&nvfp4).check(config("nvfp4-pack-quantized", fp4(16)), "m.weight", &nvfp4);
    let mxfp4 = generator::mxfp4(rng, None, (8, 64));
    Checkpoint::of(&mxfp4).check(config("mxfp4-pack-quantized", fp4(32)), "m.weight", &mxfp4);
    let names = ("weight", "weight_scale");
    let rows = generator::block_scaled(rng, &[9, 40], (1, 40), "F8_E4M3", BF16, names);
    let rows_config = config("float-quantized", weights(8, "float", "channel"));
    Checkpoint::of(&rows).check(rows_config.clone(), "m.weight.dequantized", &rows);
    let blocks = generator::block_scaled(rng, &[150, 40], (128, 128), "F8_E4M3", F32, names);
    let mut block = weights(8, "float", "block");
    block["block_structure"] = json!([128, 128]);
    Checkpoint::of(&blocks).check(config("float-quantized", block.clone()), "m.weight.dequantized", &blocks);
    block["block_structure"] = json!("128x128");
    Checkpoint::of(&blocks).check(config("float-quantized", block.clone()), "m.weight.dequantized", &blocks);
    block["block_structure"] = json!("128");
    Checkpoint::of(&blocks).unclear(config("float-quantized", block), "does not say how it is stored");
    let integers = generator::block_scaled(rng, &[9, 40], (9, 40), "I8", BF16, names);
    let tensor = weights(8, "int", "tensor");
    Checkpoint::of(&integers).check(config("int-quantized", tensor), "m.weight.dequantized", &integers);
    Checkpoint::of(&rows).without("m.weight_scale").unclear(rows_config, "not in this file");
}

#[test]
fn fp8_by_blocks() {
    let rng = &mut Rng(31);
    let config = json!({"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]});
    let names = ("weight", "weight_scale_inv");
    let ragged = generator::block_scaled(rng, &[200, 300], (128, 128), "F8_E4M3", F32, names);
    let view = Checkpoint::of(&ragged).check(config.clone(), "m.weight.dequantized", &ragged).views()[0].clone();
    assert_eq!(view.parts["codes"], "m.weight");
    let experts = generator::block_scaled(rng, &[3, 20, 150], (128, 128), "F8_E4M3", F32, ("up", "up_scale_inv"));
    Checkpoint::of(&experts).check(config.clone(), "m.up.dequantized", &experts);
    let one = generator::block_scaled(rng, &[20, 30], (20, 30), "F8_E4M3", F32, ("weight", "weight_scale"));
    Checkpoint::of(&one).check(json!({"quant_method": "fp8"}), "m.weight.dequantized", &one);
    Checkpoint::of(&ragged).without("m.weight_scale_inv").unclear(config.clone(), "without scales");
    let smaller = json!({"quant_method": "fp8", "weight_block_size": [64, 64]});
    Checkpoint::of(&ragged).unclear(smaller, "not what the configuration says");
    // A byte is not an FP8 number for being a byte: here each is two.
    let mut packed = generator::mxfp4(rng, None, (4, 64));
    (packed.parts[0].suffix, packed.parts[0].dtype) = ("weight", "I8");
    (packed.parts[1].suffix, packed.parts[1].dtype) = ("scale", "F8_E8M0");
    Checkpoint::of(&packed).check(config.clone(), "m.weight.dequantized", &packed);
    let wrong = generator::block_scaled(rng, &[20, 30], (128, 128), "I8", F32, ("weight", "scale"));
    Checkpoint::of(&wrong).unclear(config, "does not say how it is stored");
}

#[test]
fn modelopt_and_gpt_oss() {
    let rng = &mut Rng(41);
    let nvfp4 = generator::nvfp4(rng, (8, 64), false);
    let config = |algorithm: &str| json!({"quant_method": "modelopt", "quant_algo": algorithm});
    let archive = Checkpoint::of(&nvfp4).check(config("NVFP4"), "m.weight.dequantized", &nvfp4);
    assert_eq!(archive.views()[0].params["global_scale"], "multiplier");
    Checkpoint::of(&nvfp4).unclear(config("W4A8_AWQ"), "quant_algo");
    let fp8 = generator::block_scaled(rng, &[8, 30], (8, 30), "F8_E4M3", F32, ("weight", "weight_scale"));
    Checkpoint::of(&fp8).check(config("FP8"), "m.weight.dequantized", &fp8);
    let experts = generator::mxfp4(rng, Some(3), (16, 64));
    let checkpoint = Checkpoint::of(&experts);
    checkpoint.check(json!({"quant_method": "mxfp4"}), "m.down_proj", &experts);
    checkpoint.without("m.down_proj_scales").unclear(json!({"quant_method": "mxfp4"}), "not in this file");
}

#[test]
fn bitsandbytes_in_four_and_eight_bits() {
    let config = json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"});
    for nested in [false, true] {
        for storage in [Dtype::BF16, Dtype::F32, Dtype::F16, Dtype::U8] {
            let made = generator::nf4(&mut Rng(51), (24, 100), nested, storage);
            Checkpoint::of(&made).check(config.clone(), "m.weight.dequantized", &made);
        }
        let made = generator::nf4(&mut Rng(51), (24, 100), nested, Dtype::U8);
        let damaged = |part: &mut Part| part.bytes[0] = b'[';
        let state = "m.weight.quant_state.bitsandbytes__nf4";
        Checkpoint::of(&made).change(state, damaged).unclear(config.clone(), "quant_state cannot be read");
        Checkpoint::of(&made).without("m.weight.quant_map").unclear(config.clone(), "not in this file");
    }
    let int8 = json!({"load_in_8bit": true});
    let made = Made { dtype: "BF16", ..generator::int8(&mut Rng(52), (9, 40)) };
    let plan = Checkpoint::of(&made).plan(int8.clone());
    assert_eq!((plan.views[0].len(), &plan.notes), (1, &Vec::new()));
    Checkpoint::of(&made).change("m.weight_format", |part| part.bytes[0] = 1).unclear(int8, "weight_format");
}

#[test]
fn spqr_of_both_kinds() {
    let config = json!({"quant_method": "spqr", "bits": 3, "beta1": 16, "beta2": 16, "shapes": {}});
    for tiled in [false, true] {
        for permuted in [false, true] {
            let made = generator::spqr(&mut Rng(61), (48, 48), tiled, permuted);
            let archive = Checkpoint::of(&made).check(config.clone(), "m.weight", &made);
            assert_eq!(archive.views()[0].params["outliers"], if tiled { "ptcsr" } else { "csr" });
        }
    }
    let ragged = generator::spqr(&mut Rng(62), (21, 38), false, true);
    Checkpoint::of(&ragged).check(config.clone(), "m.weight", &ragged);
    // Without an order of columns nothing says how many there are, unless the model does.
    let other = generator::spqr(&mut Rng(62), (32, 64), false, false);
    Checkpoint::of(&other).unclear(config.clone(), "does not say how it is stored");
    let wide = json!({"quant_method": "spqr", "bits": 4, "beta1": 16, "beta2": 16});
    Checkpoint::of(&other).unclear(wide, "only 3 bits");
}

#[test]
fn names_that_are_taken() {
    let made = generator::gptq(&mut Rng(5), (32, 64), 4, 32, true, false);
    let scales = |suffix| Made { parts: vec![Part { suffix, ..made.parts[2].clone() }], ..made.clone() };
    let config = gptq_config(4, 32, json!({}));
    let once = Checkpoint::of(&made).module("m", &scales("weight"));
    once.check(config.clone(), "m.weight.dequantized", &made);
    once.module("m", &scales("weight.dequantized")).unclear(config, "its name is taken");
}

#[test]
fn tensors_in_several_files_have_no_view() {
    let made = generator::awq(&mut Rng(6), (48, 128), 32);
    let checkpoint = Checkpoint::of(&made);
    let config = json!({"quant_method": "awq", "bits": 4, "group_size": 32});
    checkpoint.write(config.clone());
    fs::rename(checkpoint.path().join("model.safetensors"), checkpoint.path().join("whole")).expect("a file");
    let (first, second) = (Checkpoint::of(&made).without("m.scales"), Checkpoint::of(&made));
    let second = second.without("m.qweight").without("m.qzeros");
    for (part, name) in [(&first, "a.safetensors"), (&second, "b.safetensors")] {
        part.write(config.clone());
        fs::rename(part.path().join("model.safetensors"), checkpoint.path().join(name)).expect("a file");
    }
    let plan = plan_compress(checkpoint.path(), Some(&checkpoint.path().join("out")), true).expect("a plan");
    assert_eq!((plan.jobs.len(), plan.views.concat().len()), (2, 0));
    assert_eq!(plan.notes, ["no view of m.weight: tensors that belong to it are not in this file"]);
}

#[test]
fn an_import_demands_what_it_is_told() {
    let made = generator::awq(&mut Rng(6), (48, 128), 32);
    let checkpoint = Checkpoint::of(&made);
    checkpoint.write(json!({"quant_method": "awq", "bits": 4, "group_size": 32}));
    let out = checkpoint.path().join("out");
    let import = |method| plan_quantized(method, checkpoint.path(), Some(&out)).map(|plan| plan.views.concat().len());
    let refused = |result: crate::Result<usize>, why: &str| {
        let error = result.expect_err(why);
        assert!(error.code() == Code::BadSource && error.to_string().contains(why), "{error}");
    };
    assert_eq!(import(None).expect("a plan"), 1);
    assert_eq!(import(Some("awq")).expect("a plan"), 1);
    refused(import(Some("gptq")), "is of awq, not gptq");
    checkpoint.write(json!({"quant_method": "awq", "bits": 3, "group_size": 32}));
    refused(import(None), "no weights that are understood");
    fs::remove_file(checkpoint.path().join("config.json")).expect("a file");
    refused(import(None), "no configuration");
}
