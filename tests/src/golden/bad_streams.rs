//! Files with a stream that its codec refuses.

use cmz_codec::registry::STREAMS;
use cmz_codec::stream::{Level, Width};
use cmz_codec::{Code, Scratch};

use super::Found::Read;
use super::Refused;
use crate::cmz::{Storage, write};
use crate::inputs::skewed;
use crate::raw_file::RawFile;
use crate::source::Source;

/// Symbols in the damaged stream.
const LEN: usize = 5000;

/// A file of one tensor of bytes that is one stream of the codec.
fn file_of(codec: &str) -> RawFile {
    let source = Source::new().tensor("t", "U8", &[LEN as u64], skewed(21, LEN)).build();
    let storage = |_: &cmz_codec::safetensors::Entry| match codec {
        // `raw` beside another codec: not contiguous, so that the stream is decoded.
        "raw" => Storage::new("plain", "U8", &["raw", "zstd"], LEN as u64),
        other => Storage::new("plain", "U8", &[other], LEN as u64),
    };
    RawFile::parse(&write(&source, storage).expect("a sound file"))
}

fn case(name: &str, about: &str, codec: &str, change: impl FnOnce(&mut Vec<u8>)) -> Refused {
    let mut file = file_of(codec);
    let mut stream = encoded(codec);
    change(&mut stream.1);
    file.data(0).streams[0] = stream;
    Refused::new(&format!("bad-stream-{name}"), about, Read(Code::BadStream), file.build())
}

fn encoded(name: &str) -> (u16, Vec<u8>) {
    let codec = cmz_codec::registry::stream_by_name(name).expect("a codec of the registry");
    let mut stream = Vec::new();
    codec.encode(&skewed(21, LEN), Width::BYTE, Level::Fast, &mut Scratch::new(), &mut stream);
    (codec.id(), stream)
}

pub(super) fn cases() -> Vec<Refused> {
    let mut cases = every_codec();
    cases.extend(tiered());
    cases.extend(zstd());
    cases.push(case("rans-letters-width", "Letters of several symbols, of symbols of 8 bits.", "rans", |s| s[1] = 1));
    cases
}

/// What no codec may take.
fn every_codec() -> Vec<Refused> {
    let bytewise = STREAMS.iter().map(|entry| entry.codec).filter(|codec| codec.supports(Width::BYTE));
    bytewise
        .flat_map(|codec| {
            let name = codec.name();
            [
                case(&format!("{name}-cut"), &format!("A `{name}` stream without its last byte."), name, |s| {
                    s.truncate(s.len() - 1)
                }),
                case(&format!("{name}-long"), &format!("A `{name}` stream with 16 zeros behind it."), name, |s| {
                    s.extend([0; 16])
                }),
                case(&format!("{name}-empty"), &format!("A `{name}` stream of no bytes."), name, Vec::clear),
            ]
        })
        .collect()
}

/// 12 symbols, 4 zeros, three tile ends, then the first tile's planes.
fn tiered() -> Vec<Refused> {
    let tiered = |name: &str, about, change: fn(&mut Vec<u8>)| case(&format!("tiered-{name}"), about, "tiered", change);
    vec![
        tiered("symbol-twice", "A symbol is named twice.", |s| s[11] = s[0]),
        tiered("reserved", "The reserved bytes are not zero.", |s| s[13] = 1),
        tiered("start", "The first tile does not begin at the start.", |s| s[16] = 1),
        tiered("end-backwards", "A tile that ends before it begins.", |s| s[20..24].fill(0xff)),
        tiered("end-outside", "The last tile ends outside the stream.", |s| s[24] = s[24].wrapping_add(1)),
        tiered("tile-long", "A tile takes a word of the next one.", |s| s[20] = s[20].wrapping_add(1)),
        tiered("tile-short", "A tile is a word short.", |s| s[20] = s[20].wrapping_sub(1)),
        tiered("escapes", "A tile escapes every element of its first tier.", |s| s[28..28 + 1024].fill(0xff)),
        tiered("spare-bits", "Bits behind the last element of a plane are not zero.", |s| {
            // The last tile has 904 elements; the planes of its later tiers end inside a byte.
            let at = 28 + 4 * u32::from_le_bytes([s[20], s[21], s[22], s[23]]) as usize;
            let escapes = (0..113).map(|i| (s[at + i] & s[at + 113 + i]).count_ones()).sum::<u32>() as usize;
            assert!(!escapes.is_multiple_of(8), "the plane of tier 1 ends inside a byte");
            s[at + 226 + escapes / 8] |= 0x80;
        }),
        tiered("no-symbols", "The twelve symbols are all zero.", |s| s[..12].fill(0)),
    ]
}

fn zstd() -> Vec<Refused> {
    let zstd = |name: &str, about, change: fn(&mut Vec<u8>)| case(&format!("zstd-{name}"), about, "zstd", change);
    vec![
        zstd("garbage", "No zstd frame at all.", |s| s.fill(0x55)),
        zstd("no-size", "A frame that does not state its content size.", |s| {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).expect("zstd starts");
            encoder.include_contentsize(false).expect("zstd leaves the size out");
            std::io::Write::write_all(&mut encoder, &skewed(21, LEN)).expect("zstd compresses");
            *s = encoder.finish().expect("zstd ends");
        }),
        zstd("two-frames", "Two frames that together have the right size.", |s| {
            let half = zstd::bulk::compress(&vec![0; LEN / 2], 3).expect("zstd compresses");
            *s = [&half[..], &half].concat();
        }),
        zstd("skippable", "A skippable frame behind the frame.", |s| {
            s.extend([0x50, 0x2A, 0x4D, 0x18, 0, 0, 0, 0]);
        }),
        zstd("bomb", "A frame of 64 MiB.", |s| {
            *s = zstd::bulk::compress(&vec![0; 64 << 20], 1).expect("zstd compresses")
        }),
        zstd("content", "A frame whose content is damaged.", |s| {
            let at = s.len() / 2;
            s[at..at + 40].fill(0xff);
        }),
    ]
}
