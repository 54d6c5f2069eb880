//! Numbers of a matrix's components, on the host.

use cmz_codec::device::{DeviceCodebook, DeviceFloat};
use half::{bf16, f16};

/// Number `i` of an array.
pub(super) fn number(array: &[u8], kind: DeviceFloat, i: usize) -> f32 {
    match kind {
        DeviceFloat::F16 => f16::from_le_bytes(array.as_chunks().0[i]).to_f32(),
        DeviceFloat::Bf16 => bf16::from_le_bytes(array.as_chunks().0[i]).to_f32(),
        DeviceFloat::F32 => f32::from_le_bytes(array.as_chunks().0[i]),
        DeviceFloat::E4M3 | DeviceFloat::E5M2 | DeviceFloat::E8M0 => of_byte(array[i], kind),
    }
}

/// What a byte stands for: see the page of `block_scale`.
pub(super) fn of_byte(byte: u8, kind: DeviceFloat) -> f32 {
    match kind {
        DeviceFloat::E8M0 if byte == 0xff => f32::NAN,
        DeviceFloat::E8M0 => (f32::from(byte) - 127.0).exp2(),
        DeviceFloat::E4M3 if byte & 0x7f == 0x7f => f32::NAN,
        DeviceFloat::E4M3 => {
            let (exponent, mantissa) = (i32::from(byte >> 3 & 15), f32::from(byte & 7));
            let magnitude =
                if exponent == 0 { mantissa * 2f32.powi(-9) } else { (8.0 + mantissa) * 2f32.powi(exponent - 10) };
            if byte & 0x80 == 0 { magnitude } else { -magnitude }
        }
        _ => f16::from_le_bytes([0, byte]).to_f32(),
    }
}

/// The nearest number of a type, as the page of `codebook` says.
fn rounded(x: f32, kind: DeviceFloat) -> f32 {
    match kind {
        DeviceFloat::F16 => f16::from_f32(x).to_f32(),
        DeviceFloat::Bf16 => bf16::from_f32(x).to_f32(),
        DeviceFloat::F32 => x,
        // The magnitudes ascend with the bytes, of which the even one is nearest where two are; behind the greatest is where numbers end.
        _ => {
            let (end, beyond) = if kind == DeviceFloat::E4M3 { (480.0, f32::NAN) } else { (65_536.0, f32::INFINITY) };
            let finite = (0..=0x7f).map(|byte| of_byte(byte, kind)).take_while(|magnitude| magnitude.is_finite());
            let candidates = finite.map(|magnitude| (magnitude, magnitude)).chain([(end, beyond)]).enumerate();
            let distance = |(byte, (magnitude, _)): &(usize, (f32, f32))| ((magnitude - x.abs()).abs(), byte % 2);
            let nearest =
                candidates.min_by(|a, b| distance(a).partial_cmp(&distance(b)).unwrap_or(std::cmp::Ordering::Less));
            nearest.map_or(x, |(_, (_, magnitude))| magnitude.copysign(x))
        }
    }
}

/// The numbers of all tables of a codebook; of its elements' type if `round`.
pub(super) fn entries(codebook: &DeviceCodebook, parts: &[&[u8]], round: bool) -> Vec<f32> {
    let bits = usize::from(codebook.bits);
    let groups = codebook.groups.count(codebook.vectors) as usize;
    let entry = |i: usize| {
        let (group, index) = (i >> bits, i & ((1 << bits) - 1));
        let x = if codebook.binary {
            let alpha = |bit: usize| number(parts[1], codebook.table, group * bits + bit);
            let term = |bit: usize| if index >> bit & 1 == 1 { alpha(bit) } else { -alpha(bit) };
            (1..bits).fold(term(0), |sum, bit| sum + term(bit)) + number(parts[2], codebook.table, group)
        } else {
            number(parts[1], codebook.table, i)
        };
        if round { rounded(x, codebook.element) } else { x }
    };
    (0..(groups << bits) * codebook.dim as usize).map(entry).collect()
}
