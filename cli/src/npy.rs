//! The header of NumPy's `.npy` files (numpy/lib/format.py, versions 1.0 and 2.0).

use std::fmt::Write;

use cmz_format::Dtype;

/// How elements of a type appear in a `.npy` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Npy {
    /// NumPy's name of the type.
    pub(crate) descr: &'static str,
    /// Whether the elements are packed, so that the array is one of bytes.
    pub(crate) flat: bool,
    /// Whether NumPy lacks the type.
    pub(crate) substitute: bool,
}

/// How elements of this type are written; unknown types as bytes.
pub(crate) fn of_dtype(dtype: Option<Dtype>) -> Npy {
    let exact = |descr| Npy { descr, flat: false, substitute: false };
    match dtype {
        Some(Dtype::BOOL) => exact("|b1"),
        Some(Dtype::U8) => exact("|u1"),
        Some(Dtype::I8) => exact("|i1"),
        Some(Dtype::U16) => exact("<u2"),
        Some(Dtype::I16) => exact("<i2"),
        Some(Dtype::F16) => exact("<f2"),
        Some(Dtype::U32) => exact("<u4"),
        Some(Dtype::I32) => exact("<i4"),
        Some(Dtype::F32) => exact("<f4"),
        Some(Dtype::U64) => exact("<u8"),
        Some(Dtype::I64) => exact("<i8"),
        Some(Dtype::F64) => exact("<f8"),
        Some(Dtype::C64) => exact("<c8"),
        Some(Dtype::BF16) => Npy { descr: "<u2", flat: false, substitute: true },
        Some(dtype) if dtype.bits() == 8 => Npy { descr: "|u1", flat: false, substitute: true },
        _ => Npy { descr: "|u1", flat: true, substitute: true },
    }
}

/// The header of an array with this shape. It ends on a multiple of 64 bytes.
pub(crate) fn header(descr: &str, shape: &[u64]) -> Vec<u8> {
    let mut dict = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (");
    for dim in shape {
        // Writing to a string cannot fail.
        let _ = write!(dict, "{dim}, ");
    }
    if shape.len() > 1 {
        dict.truncate(dict.len() - 2);
    } else if shape.len() == 1 {
        dict.truncate(dict.len() - 1);
    }
    dict.push_str("), }");
    // 64 dimensions of 20 digits need a few thousand bytes: version 1.0 always suffices.
    let prefix = 10;
    let len = (prefix + dict.len() + 1).next_multiple_of(64) - prefix;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend_from_slice(&(len as u16).to_le_bytes());
    header.extend_from_slice(dict.as_bytes());
    header.resize(prefix + len - 1, b' ');
    header.push(b'\n');
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_what_numpy_writes() {
        for (shape, text) in [(&[][..], "()"), (&[3], "(3,)"), (&[2, 3], "(2, 3)"), (&[0, 1, 2], "(0, 1, 2)")] {
            let header = header("<f4", shape);
            assert_eq!(header.len() % 64, 0);
            assert_eq!(usize::from(u16::from_le_bytes([header[8], header[9]])), header.len() - 10);
            let expected = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {text}, }}");
            assert_eq!(std::str::from_utf8(&header[10..]).unwrap().trim_end(), expected);
            assert_eq!(header.last(), Some(&b'\n'));
        }
    }

    #[test]
    fn substitutes_have_the_width_of_the_type() {
        for &dtype in Dtype::ALL {
            let npy = of_dtype(Some(dtype));
            let bytes: u64 = npy.descr[2..].parse().unwrap();
            assert!(npy.flat || bytes * 8 == dtype.bits(), "{dtype}");
        }
    }
}
