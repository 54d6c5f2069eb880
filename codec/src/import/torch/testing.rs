//! Writes files as `torch.save` does, for tests.

/// A tensor: its name, element type, shape and bytes.
pub(crate) type Tensor<'a> = (String, &'a str, Vec<u64>, Vec<u8>);

/// A file with a dict of tensors, each in a storage of its own; and of some numbers.
pub(crate) fn file(tensors: &[Tensor<'_>], numbers: &[(&str, u32)]) -> Vec<u8> {
    let mut members = vec![("archive/data.pkl".to_owned(), pickle(tensors, numbers))];
    let data = |(i, tensor): (usize, &Tensor<'_>)| (format!("archive/data/{i}"), tensor.3.clone());
    members.extend(tensors.iter().enumerate().map(data));
    zip(&members)
}

fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

fn number(number: u64) -> Vec<u8> {
    [b"J", &(number as u32).to_le_bytes()[..]].concat()
}

fn pickle(tensors: &[Tensor<'_>], numbers: &[(&str, u32)]) -> Vec<u8> {
    let mut out = b"\x80\x02}(".to_vec();
    for (i, (name, dtype, shape, bytes)) in tensors.iter().enumerate() {
        let (storage, size) = match *dtype {
            "I16" => ("ShortStorage", 2),
            "I32" => ("IntStorage", 4),
            "BF16" => ("BFloat16Storage", 2),
            other => panic!("no test writes tensors of type {other}"),
        };
        let strides = (0..shape.len()).map(|d| shape[d + 1..].iter().product::<u64>());
        out.extend(text(name));
        out.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((");
        out.extend(text("storage"));
        out.extend(format!("ctorch\n{storage}\n").as_bytes());
        out.extend([text(&i.to_string()), text("cpu"), number(bytes.len() as u64 / size)].concat());
        out.extend(b"tQK\0(");
        shape.iter().for_each(|&size| out.extend(number(size)));
        out.extend(b"t(");
        strides.for_each(|stride| out.extend(number(stride)));
        out.extend(b"t\x89ccollections\nOrderedDict\n)RtR");
    }
    for &(name, value) in numbers {
        out.extend([text(name), number(value.into())].concat());
    }
    out.extend(b"u.");
    out
}

fn zip(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in members {
        let (offset, len, name_len) =
            (file.len() as u32, (bytes.len() as u32).to_le_bytes(), (name.len() as u16).to_le_bytes());
        let entry =
            [b"PK\x01\x02", &[0; 16][..], &len, &len, &name_len, &[0; 12], &offset.to_le_bytes(), name.as_bytes()];
        directory.extend(entry.concat());
        file.extend(
            [b"PK\x03\x04", &[0; 14][..], &len, &len, &name_len, &[0; 2], name.as_bytes(), bytes.as_slice()].concat(),
        );
    }
    let (start, count) = ((file.len() as u32).to_le_bytes(), (members.len() as u16).to_le_bytes());
    let size = (directory.len() as u32).to_le_bytes();
    file.extend(directory);
    file.extend([b"PK\x05\x06", &[0; 4][..], &count, &count, &size, &start, &[0; 2]].concat());
    file
}
