//! Views of generated tensors, and of wrong ones.

use cmz_format::{Code, Dtype, View};
use serde_json::{Map, Value, json};

use super::generator::{self, BF16, F16, F32, Made, PackQuantized, Part, Rng, SpqrGroups};
use super::{OpenView, PartSpec, Parts, Spec};
use crate::Result;
use crate::registry::{LAYOUTS, layout_by_name};

/// A view with the bytes of its parts.
#[derive(Clone, Debug)]
struct Sample {
    view: View,
    parts: Vec<(&'static str, Part)>,
    dense: Vec<u8>,
}

/// A view of tensors by a layout; `roles` are those of the tensors by the ends of their names.
fn sample(layout: &str, params: Value, roles: &[(&str, &'static str)], made: Made) -> Sample {
    let of = |part: &Part| roles.iter().find(|(suffix, _)| *suffix == part.suffix).map(|(_, role)| *role);
    let parts: Vec<_> = made.parts.into_iter().filter_map(|part| Some((of(&part)?, part))).collect();
    let view = View {
        name: "weight".to_owned(),
        dtype: made.dtype.to_owned(),
        shape: made.shape,
        layout: layout.to_owned(),
        params: params.as_object().cloned().unwrap_or_default(),
        parts: parts.iter().map(|(role, _)| ((*role).to_owned(), (*role).to_owned())).collect(),
    };
    Sample { view, parts, dense: made.dense }
}

impl Sample {
    fn open(&self) -> Result<OpenView> {
        let find = |name: &str| self.parts.iter().find(|(role, _)| *role == name).map(|(_, part)| part);
        let spec =
            Spec::new(&self.view, |name| find(name).map(|part| PartSpec { dtype: part.dtype, shape: &part.shape }));
        let layout = layout_by_name(&self.view.layout).expect("a layout of the registry");
        let spec = spec.expect("every part is there");
        layout.check(&spec)?;
        let mut parts = Parts::default();
        self.parts.iter().for_each(|(role, part)| parts.insert(role, part.bytes.clone()));
        OpenView::new(layout, &self.view, &spec, parts)
    }

    fn rows(&self) -> u64 {
        self.view.shape[0]
    }

    /// Opens the view and compares the decoders.
    fn read(&self) -> Vec<u8> {
        let open = self.open().unwrap_or_else(|e| panic!("{:?}: {e}", self.view));
        let whole = open.read_rows(0..self.rows()).expect("all rows");
        assert!(whole == open.read_naive(), "{:?}: the decoders differ", self.view);
        let row = whole.len() / self.rows() as usize;
        for rows in [0..1, self.rows() / 3..self.rows() / 2 + 1, self.rows() - 1..self.rows(), 1..1] {
            let expected = &whole[rows.start as usize * row..rows.end as usize * row];
            assert!(open.read_rows(rows.clone()).expect("rows") == expected, "{:?}: rows {rows:?}", self.view);
            for threads in [1, 3] {
                let mut filled = vec![0xEE; expected.len()];
                open.read_rows_into(rows.clone(), &mut filled, threads).expect("rows");
                assert!(filled == expected, "{:?}: rows {rows:?} on {threads} threads", self.view);
            }
        }
        let mut short = vec![0; row - 1];
        assert_eq!(open.read_rows_into(0..1, &mut short, 1).map_err(|e| e.code()), Err(Code::InvalidArgument));
        assert_eq!(open.read_rows(0..self.rows() + 1).map_err(|e| e.code()), Err(Code::InvalidArgument));
        assert_eq!(open.byte_len(), whole.len());
        whole
    }

    fn check(&self) {
        assert!(self.read() == self.dense, "{:?}: not what was packed", self.view);
    }

    fn error(&self) -> Option<Code> {
        self.open().err().map(|e| e.code())
    }
}

const GPTQ: [(&str, &str); 4] =
    [("qweight", "codes"), ("qzeros", "zero_points"), ("scales", "scales"), ("g_idx", "groups")];
const PACKED: [(&str, &str); 4] = [
    ("weight_packed", "codes"),
    ("weight_scale", "scales"),
    ("weight_zero_point", "zero_points"),
    ("weight_g_idx", "groups"),
];
const NF4: [(&str, &str); 5] = [
    ("weight", "codes"),
    ("weight.absmax", "magnitudes"),
    ("weight.quant_map", "table"),
    ("weight.nested_absmax", "nested_magnitudes"),
    ("weight.nested_quant_map", "nested_table"),
];
const SPQR: [(&str, &str); 4] =
    [("dense_weights", "codes"), ("row_offsets", "outlier_offsets"), ("col_vals", "outliers"), ("in_perm", "order")];

fn gptq(shape: (usize, usize), bits: usize, group: usize, minus_one: bool, act_order: bool) -> Sample {
    let made = generator::gptq(&mut Rng(bits as u64), shape, bits, group, minus_one, act_order);
    let mut params = json!({"bits": bits, "zero_points": if minus_one { "minus_one" } else { "stored" }});
    let roles = if act_order { &GPTQ[..] } else { &GPTQ[..3] };
    if !act_order {
        params["group_size"] = group.into();
    }
    sample("gptq", params, roles, made)
}

fn packed(shape: (usize, usize), form: PackQuantized) -> Sample {
    let made = generator::pack_quantized(&mut Rng(form.bits as u64), shape, form);
    let mut params = json!({"bits": form.bits, "packing": if form.dense { "dense" } else { "padded" }});
    if !form.act_order {
        params["group_size"] = form.group.into();
    }
    sample("compressed_tensors_int", params, &PACKED, made)
}

fn nested_offset(made: &Made) -> u32 {
    let state = made.parts.iter().find(|part| part.suffix.starts_with("weight.quant_state")).expect("a state");
    let state: Value = serde_json::from_slice(&state.bytes).expect("JSON");
    (state["nested_offset"].as_f64().expect("a number") as f32).to_bits()
}

fn nf4(shape: (usize, usize), nested: bool, storage: Dtype) -> Sample {
    let made = generator::nf4(&mut Rng(4), shape, nested, storage);
    let params = match nested {
        true => json!({"block_size": 64, "nested_block_size": 256, "nested_offset_bits": nested_offset(&made)}),
        false => json!({"block_size": 64}),
    };
    sample("bitsandbytes_4bit", params, &NF4, made)
}

fn spqr(shape: (usize, usize), tiled: bool, permuted: bool) -> Sample {
    let made = generator::spqr(&mut Rng(shape.1 as u64), shape, tiled, permuted);
    sample("spqr_tiles", json!({"outliers": if tiled { "ptcsr" } else { "csr" }}), &SPQR, made)
}

fn qmoe(shape: (usize, usize)) -> Sample {
    let roles = [("w_comp", "codewords"), ("row_off", "row_offsets"), ("ter_minmax", "extremes")];
    sample("qmoe", json!({}), &roles, generator::qmoe(&mut Rng(shape.1 as u64), shape))
}

fn spqr_groups(shape: (usize, usize), form: SpqrGroups) -> Sample {
    let made = generator::spqr_groups(&mut Rng(shape.0 as u64), shape, form);
    let roles = [
        ("quant_weights", "codes"),
        ("perm", "order"),
        ("outliers_matrix.indices", "outlier_places"),
        ("outliers_matrix.values", "outliers"),
    ];
    let lists = [
        ("scale", "scales"),
        ("zeros", "zero_points"),
        ("scale_qq_scale", "scale_scales"),
        ("scale_qq_zero", "scale_zero_points"),
        ("zero_qq_scale", "zero_point_scales"),
        ("zero_qq_zero", "zero_point_zero_points"),
    ];
    let numbered = |(list, role): &(&str, &str)| -> Vec<(&str, &str)> {
        let name = |i| (&*format!("quant_layer_{list}.{i}").leak(), &*format!("{role}.{i}").leak());
        (0..shape.1.div_ceil(form.group)).map(name).collect()
    };
    let roles = [&roles[..], &lists.iter().flat_map(numbered).collect::<Vec<_>>()].concat();
    sample("spqr_groups", json!({"group_size": form.group}), &roles, made)
}

/// At least one view by each layout.
fn samples() -> Vec<Sample> {
    let mut all = Vec::new();
    for bits in 2..=8 {
        all.push(gptq((32, 64), bits, 16, bits % 2 == 0, false));
        all.push(gptq((33, 96), bits, 32, bits % 2 == 1, true));
    }
    all.push(gptq((5, 70), 3, 70, true, false));
    all.push(sample(
        "awq",
        json!({"bits": 4, "group_size": 32}),
        &GPTQ[..3],
        generator::awq(&mut Rng(1), (40, 96), 32),
    ));
    for bits in 1..=8 {
        let form = PackQuantized { bits, group: 25, dense: false, asymmetric: false, act_order: false, scale: BF16 };
        all.push(packed((7, 100), form));
        all.push(packed((7, 100), PackQuantized { dense: true, asymmetric: true, scale: F16, ..form }));
        all.push(packed((37, 75), PackQuantized { asymmetric: true, act_order: true, scale: F32, ..form }));
    }
    let names = ("weight", "weight_scale_inv");
    let roles = [("weight", "codes"), ("weight_scale_inv", "scales")];
    for (shape, block, codes, scale) in [
        (&[150, 300][..], (128, 128), "F8_E4M3", F32),
        (&[3, 20, 33], (8, 16), "F8_E4M3", BF16),
        (&[20, 33], (1, 4096), "I8", F16),
        (&[9, 9], (1 << 30, 1 << 30), "I8", F32),
    ] {
        let made = generator::block_scaled(&mut Rng(8), shape, block, codes, scale, names);
        let params = json!({"block_rows": block.0, "block_columns": block.1});
        all.push(sample("block_scaled", params, &roles, made));
    }
    for divisor in [true, false] {
        let made = generator::nvfp4(&mut Rng(5), (9, 64), divisor);
        let params = json!({"group_size": 16, "global_scale": if divisor { "divisor" } else { "multiplier" }});
        let roles = match divisor {
            true => [("weight_packed", "codes"), ("weight_scale", "scales"), ("weight_global_scale", "global_scale")],
            false => [("weight", "codes"), ("weight_scale", "scales"), ("weight_scale_2", "global_scale")],
        };
        all.push(sample("nvfp4", params, &roles, made));
    }
    let rows = generator::mxfp4(&mut Rng(6), None, (9, 96));
    let params = |order: &str| json!({"group_size": 32, "order": order});
    all.push(sample("mxfp4", params("rows"), &PACKED, rows));
    let roles = [("down_proj_blocks", "codes"), ("down_proj_scales", "scales")];
    let experts = generator::mxfp4(&mut Rng(7), Some(5), (6, 64));
    all.push(sample("mxfp4", params("transposed"), &roles, experts));
    for shape in [(16, 64), (1, 129), (300, 65)] {
        all.push(nf4(shape, false, Dtype::U8));
        all.push(nf4(shape, true, Dtype::U8));
    }
    all.push(nf4((6, 100), true, Dtype::BF16));
    let roles = [("weight", "codes"), ("SCB", "magnitudes")];
    all.push(sample("bitsandbytes_8bit", json!({}), &roles, generator::int8(&mut Rng(9), (11, 30))));
    for shape in [(32, 48), (16, 1000)] {
        all.extend([(false, false), (false, true), (true, false), (true, true)].map(|(t, p)| spqr(shape, t, p)));
    }
    all.extend([spqr((21, 37), false, false), spqr((3, 18), false, true)]);
    all.extend([(64, 48), (5, 301), (7, 1)].map(qmoe));
    for (shape, shared) in [((32, 37), Some(16)), ((6, 24), Some(3)), ((5, 16), None)] {
        all.extend([F16, BF16, F32].map(|float| spqr_groups(shape, SpqrGroups { group: 8, shared, float })));
    }
    all
}

#[test]
fn views_are_what_was_packed() {
    let samples = samples();
    samples.iter().for_each(Sample::check);
    for entry in LAYOUTS {
        assert!(samples.iter().any(|sample| sample.view.layout == entry.layout.name()), "{:?}", entry.layout);
    }
}

#[test]
fn any_bytes_decode_alike_or_are_refused() {
    let mut rng = Rng(77);
    for mut sample in samples() {
        for _ in 0..3 {
            // Indices are left as they are, so that more is looked at than their checks.
            for (role, part) in &mut sample.parts {
                let indices =
                    ["groups", "outlier_offsets", "outliers", "outlier_places", "order", "codewords", "row_offsets"];
                if !indices.contains(role) {
                    part.bytes.iter_mut().for_each(|byte| *byte = rng.below(256) as u8);
                }
            }
            sample.read();
        }
        for (_, part) in &mut sample.parts {
            part.bytes.iter_mut().for_each(|byte| *byte = rng.below(256) as u8);
        }
        assert!(matches!(sample.error(), None | Some(Code::Malformed)), "{:?}", sample.view);
    }
}

#[test]
fn wrong_parameters_are_refused() {
    for sample in samples() {
        let with = |params: Map<String, Value>| {
            let view = View { params, ..sample.view.clone() };
            Sample { view, ..sample.clone() }.error()
        };
        let change = |key: &str, value: Value| {
            let mut params = sample.view.params.clone();
            params.insert(key.to_owned(), value);
            with(params)
        };
        assert_eq!(change("another", json!(1)), Some(Code::UnknownEncoding));
        for (key, value) in &sample.view.params {
            let mut without = sample.view.params.clone();
            without.remove(key);
            assert_eq!(with(without), Some(Code::Malformed), "{:?} without {key}", sample.view);
            for wrong in [json!(-1), json!(4.5), json!(1u64 << 40), json!(null), json!([]), json!(true)] {
                assert_eq!(change(key, wrong.clone()), Some(Code::Malformed), "{:?}, {key} = {wrong}", sample.view);
            }
            if value.is_string() {
                assert_eq!(change(key, json!("from-the-future")), Some(Code::UnknownEncoding), "{key}");
            } else if key != "nested_offset_bits" {
                assert_eq!(change(key, json!(0)), Some(Code::Malformed), "{:?}, {key} = 0", sample.view);
            }
        }
    }
}

#[test]
fn wrong_parts_are_refused() {
    for sample in samples() {
        let with = |change: &dyn Fn(&mut Sample)| {
            let mut changed = sample.clone();
            change(&mut changed);
            changed.error()
        };
        for i in 0..sample.parts.len() {
            let role = sample.parts[i].0;
            let missing = with(&|s| {
                s.view.parts.remove(role);
            });
            // Without zero points or an order of columns the rest is sound.
            let optional = matches!(
                (sample.view.layout.as_str(), role),
                ("compressed_tensors_int", "zero_points") | ("spqr_tiles", "order")
            );
            assert_eq!(missing.is_none(), optional, "{:?} without {role}", sample.view);
            assert_eq!(with(&|s| s.parts[i].1.dtype = "C64"), Some(Code::UnknownEncoding), "{:?}: {role}", sample.view);
            let longer = with(&|s| s.parts[i].1.shape.insert(0, 3));
            assert_eq!(longer, Some(Code::Malformed), "{:?}: {role}", sample.view);
            let huge = with(&|s| s.parts[i].1.shape = vec![1 << 40, 1 << 40]);
            assert_eq!(huge, Some(Code::Malformed), "{:?}: {role}", sample.view);
        }
        let renamed = with(&|s| {
            s.view.parts.insert("another".to_owned(), sample.parts[0].0.to_owned());
        });
        assert_eq!(renamed, Some(Code::UnknownEncoding));
        assert_eq!(with(&|s| s.view.dtype = "I32".to_owned()), Some(Code::UnknownEncoding), "{:?}", sample.view);
        for shape in [vec![], vec![5], vec![u64::MAX, u64::MAX], vec![1 << 40, 1 << 20], vec![7, 9, 11, 13]] {
            let refused = with(&|s| s.view.shape.clone_from(&shape));
            assert_eq!(refused, Some(Code::Malformed), "{:?} as {shape:?}", sample.view);
        }
        for shape in [vec![0, 1 << 60], vec![1 << 60, 0], vec![0, 0, 1 << 62]] {
            // Without elements, only a layout whose parts happen to fit could take it: none does.
            assert!(with(&|s| s.view.shape.clone_from(&shape)).is_some(), "{:?} as {shape:?}", sample.view);
        }
    }
}

#[test]
fn indices_are_checked() {
    let set = |sample: &Sample, role: &str, at: usize, bytes: &[u8]| {
        let mut changed = sample.clone();
        let part = changed.parts.iter_mut().find(|(other, _)| *other == role).expect("a part");
        part.1.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        changed.error()
    };
    let ordered = gptq((8, 64), 4, 32, true, true);
    assert_eq!(set(&ordered, "groups", 4, &1i32.to_le_bytes()), None);
    for group in [2i32, -1, i32::MIN] {
        assert_eq!(set(&ordered, "groups", 4, &group.to_le_bytes()), Some(Code::Malformed), "group {group}");
    }
    for tiled in [false, true] {
        let sample = spqr((32, 48), tiled, true);
        assert_eq!(set(&sample, "outlier_offsets", 0, &1i32.to_le_bytes()), Some(Code::Malformed));
        assert_eq!(set(&sample, "outlier_offsets", 4, &(-1i32).to_le_bytes()), Some(Code::Malformed));
        assert_eq!(set(&sample, "outlier_offsets", 4, &i32::MAX.to_le_bytes()), Some(Code::Malformed));
        assert_eq!(set(&sample, "outliers", 0, &48i32.to_le_bytes()), Some(Code::Malformed));
        assert_eq!(set(&sample, "order", 0, &[48, 0]), Some(Code::Malformed));
        let twice: [u8; 4] = sample.parts[3].1.bytes[4..8].try_into().expect("four bytes");
        assert_eq!(set(&sample, "order", 0, &twice), Some(Code::Malformed));
    }
}

#[test]
fn rows_of_codewords_are_checked() {
    let sample = qmoe((5, 301));
    let set = |role: &str, at: usize, bytes: &[u8]| {
        let mut changed = sample.clone();
        let part = changed.parts.iter_mut().find(|(other, _)| *other == role).expect("a part");
        part.1.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        changed.error()
    };
    for (at, offset) in [(0, 1i32), (4, -1), (4, i32::MAX), (4, 0), (20, 5), (20, i32::MIN)] {
        assert_eq!(set("row_offsets", at, &offset.to_le_bytes()), Some(Code::Malformed), "{at}: {offset}");
    }
    // A codeword of twelve symbols in place of one of two; and more weights than there are, or fewer.
    assert_eq!(set("codewords", 0, &[5, 0]), Some(Code::Malformed));
    for width in [0, 1, 290, 340, 1 << 40] {
        let mut changed = sample.clone();
        changed.view.shape[1] = width;
        assert_eq!(changed.error(), Some(Code::Malformed), "{width}");
    }
}

#[test]
fn three_bits_reach_over_words() {
    // Codes 0, 1, … 7 and again, each 32 of them in three words.
    let word = |words: [u32; 3]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<_>>();
    let mut sample = gptq((1, 32), 3, 32, false, false);
    sample.parts[0].1.bytes = word([0x88fa_c688, 0xc688_fac6, 0xfac6_88fa]);
    sample.parts[1].1.bytes = vec![0; 4];
    sample.parts[2].1.bytes = vec![0x00, 0x3c];
    let halves: Vec<u16> = [0, 0x3c00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600, 0x4700].repeat(4);
    assert_eq!(sample.read(), halves.iter().flat_map(|half| half.to_le_bytes()).collect::<Vec<_>>());
}

/// The tile that the format's reference decoder gave; from published code, not from the generator.
#[test]
fn a_tile_of_spqr_is_what_its_library_decodes() {
    let words: [u64; 16] = [
        0x116a_f0e6_2af0_e611,
        0x115f_7df7_df7d_f7ee,
        0x07cc_ea87_8cea_8783,
        0x07f9_7797_7977_9758,
        0x39ee_e0a7_2ee0_a735,
        0x39db_6db6_db6d_b6ca,
        0x0e08_fac6_88fa_c6a7,
        0x0e3d_67d6_7d67_d67c,
        0x19aa_f0e6_2af0_e611,
        0x199f_7df7_df7d_f7ee,
        0x2e0c_ea87_8cea_8783,
        0x2e39_7797_7977_9758,
        0x1eee_e0a7_2ee0_a735,
        0x1edb_6db6_db6d_b6ca,
        0x2f48_fac6_88fa_c6a7,
        0x2f7d_67d6_7d67_d67c,
    ];
    let row_0 = [42450, 8514, 10634, 41474, 9586, 10995, 37372, 10274].repeat(2);
    let row_15 = [45125, 44135, 40004, 11197].repeat(4);
    let mut sample = spqr((16, 16), false, false);
    sample.parts[0].1.bytes = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    sample.parts[1].1.bytes = vec![0; 17 * 4];
    let halves: Vec<u16> = sample.read().as_chunks().0.iter().map(|&half| u16::from_le_bytes(half)).collect();
    assert_eq!((&halves[..16], &halves[240..]), (&row_0[..], &row_15[..]));
}

/// Columns from 32768 on are no negative numbers.
#[test]
fn columns_of_outliers_are_unsigned() {
    let mut sample = spqr((16, 65_536), false, false);
    let offsets = [0u32].into_iter().chain([1; 16]).flat_map(u32::to_le_bytes).collect();
    sample.parts[0].1.bytes.fill(0);
    sample.parts[1].1.bytes = offsets;
    let count = sample.parts[2].1.bytes.len();
    sample.parts[2].1.bytes = [&0x3c00_ffff_u32.to_le_bytes()[..], &vec![0; count - 4]].concat();
    let dense = sample.open().expect("a sound view").read_rows(0..1).expect("a row");
    assert_eq!(dense[2 * 65_535..], 0x3c00_u16.to_le_bytes());
    assert!(dense[..2 * 65_535].iter().all(|&byte| byte == 0));
}

#[test]
fn places_of_groups_are_checked() {
    let sample = spqr_groups((6, 24), SpqrGroups { group: 8, shared: Some(3), float: F16 });
    let set = |role: &str, at: usize, bytes: &[u8]| {
        let mut changed = sample.clone();
        let part = changed.parts.iter_mut().find(|(other, _)| *other == role).expect("a part");
        part.1.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        changed.error()
    };
    let (_, places) = sample.parts.iter().find(|(role, _)| *role == "outlier_places").expect("places");
    let columns = places.bytes.len() / 2;
    assert_eq!(set("outlier_places", columns - 8, &6u64.to_le_bytes()), Some(Code::Malformed));
    assert_eq!(set("outlier_places", columns - 8, &u64::MAX.to_le_bytes()), Some(Code::Malformed));
    assert_eq!(set("outlier_places", columns, &24u64.to_le_bytes()), Some(Code::Malformed));
    assert_eq!(set("outlier_places", 0, &5u64.to_le_bytes()), Some(Code::Malformed), "not ascending");
    let mut twice = places.bytes.clone();
    twice.copy_within(0..8, 8);
    twice.copy_within(columns..columns + 8, columns + 8);
    assert_eq!(set("outlier_places", 0, &twice), Some(Code::Malformed), "twice");
    assert_eq!(set("order", 0, &24i32.to_le_bytes()), Some(Code::Malformed));
    assert_eq!(set("order", 0, &(-1i32).to_le_bytes()), Some(Code::Malformed));
}

/// The example of the page, and numbers that are not finite.
#[test]
fn outliers_of_groups_replace() {
    let mut sample = spqr_groups((1, 1), SpqrGroups { group: 8, shared: Some(1), float: F16 });
    let mut set = |role: &str, bytes: &[u8], shape: &[u64]| {
        let (_, part) = sample.parts.iter_mut().find(|(other, _)| *other == role).expect("a part");
        (part.bytes, part.shape) = (bytes.to_vec(), shape.to_vec());
    };
    set("codes", &[7], &[1, 1]);
    set("scales.0", &[3], &[1, 1]);
    set("scale_scales.0", &[0x00, 0x34], &[1, 1]);
    set("scale_zero_points.0", &[0x00, 0xbc], &[1, 1]);
    set("zero_points.0", &[2], &[1, 1]);
    set("zero_point_scales.0", &[0x00, 0x3e], &[1, 1]);
    set("zero_point_zero_points.0", &[0x00, 0x00], &[1, 1]);
    set("outliers", &[], &[0]);
    set("outlier_places", &[], &[2, 0]);
    let replaced = |outlier: u16, scale: u16| {
        let mut sample = sample.clone();
        for (role, part) in &mut sample.parts {
            match *role {
                "outliers" => (part.bytes, part.shape) = (outlier.to_le_bytes().to_vec(), vec![1]),
                "outlier_places" => (part.bytes, part.shape) = (vec![0; 16], vec![2, 1]),
                "scale_scales.0" => part.bytes = scale.to_le_bytes().to_vec(),
                _ => {}
            }
        }
        sample.read()
    };
    assert_eq!(sample.read(), [0x00, 0x44]);
    assert_eq!(replaced(0x3800, 0x3400), [0x00, 0x38]);
    assert_eq!(replaced(0x8000, 0x3400), [0x00, 0x44], "an outlier of zero is none");
    assert_eq!(replaced(0x3800, 0x7c00), [0x00, 0x7e], "infinity is not replaced");
    assert_eq!(replaced(0x7e01, 0x3400), [0x00, 0x7e]);
}
