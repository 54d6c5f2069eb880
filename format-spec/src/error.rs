//! One error type for the whole project: a stable code, where it happened, and
//! what to do about it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Result with the project's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! codes {
    ($($name:ident $number:literal $doc:literal,)*) => {
        /// Stable error codes. The thousands digit says who must act and is the exit
        /// status of the `cmz` command: 1 the operation failed, 2 the request is wrong,
        /// 3 the data is wrong, 4 newer software is needed, 5 refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Code {
            $(#[doc = $doc] $name,)*
        }

        impl Code {
            /// Every code, in ascending order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The number printed after `CMZ`.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Self::$name => $number,)* }
            }

            /// One sentence that explains the code.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $doc,)* }
            }
        }
    };
}

codes! {
    Io 1001 "Reading or writing failed.",
    SourceChanged 1002 "A source file changed while it was being read.",
    NotWeights 1003 "The input is not a checkpoint at all (a Git LFS pointer, a web page, a pickle).",
    NoGpu 1004 "No usable GPU or driver.",
    Interrupted 1005 "The caller asked to stop.",
    Device 1006 "The CUDA driver reports an error, or memory of the device ran out.",
    InvalidArgument 2001 "The request cannot be met: no such tensor, rows out of range, a wrong buffer size.",
    MissingBase 2002 "A tensor is stored as what sets it apart from one of another file, and that file is not given.",
    StoredChecksum 3001 "The stored bytes of a block do not match their checksum.",
    DecodedChecksum 3002 "A block decodes to bytes that do not match their checksum.",
    Truncated 3003 "The file ends too early.",
    Malformed 3004 "A structure of the file breaks a rule of the format.",
    BadStream 3005 "A stream inside a block cannot be decoded.",
    Disagreement 3006 "Two records of the same fact differ: block header and block table, or manifest and descriptor.",
    Digest 3007 "A whole-file digest does not match.",
    BadSource 3008 "The source checkpoint breaks the rules of its own format.",
    NotCmz 3009 "The file does not start with the .cmz magic.",
    Padding 3010 "Bytes that must be zero are not.",
    Different 3011 "Two checkpoints that should be equal differ.",
    WrongBase 3012 "A file given as the base is not the one that a tensor was stored against.",
    Version 4001 "The file was written by a newer, incompatible version of the format.",
    Feature 4002 "The file uses a feature that this version does not know.",
    UnknownCodec 4003 "A tensor uses a stream codec that this version does not know.",
    UnknownEncoding 4004 "A tensor uses an encoding or element type that this version does not know.",
    Exists 5001 "The target exists.",
    NoSpace 5002 "There is not enough room on the target's file system.",
    Limit 5003 "The file asks for more than the limits allow.",
    Busy 5004 "Another process is writing the same target.",
    OtherPartial 5005 "An unfinished file of another conversion is in the way.",
}

/// Who must act on an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The operating system refused: the environment must be mended.
    Failed,
    /// The caller asked for something that does not exist.
    InvalidArgument,
    /// The file ends too early: fetch it again.
    Truncated,
    /// The file is damaged or hostile: fetch it again.
    Corrupt,
    /// The file is sound, but newer software is needed.
    Unsupported,
    /// A configured limit or a safety rule refused the operation.
    Refused,
}

impl Code {
    /// Who must act.
    #[must_use]
    pub const fn kind(self) -> ErrorKind {
        match (self, self.number() / 1000) {
            (Self::Truncated, _) => ErrorKind::Truncated,
            (_, 1) => ErrorKind::Failed,
            (_, 2) => ErrorKind::InvalidArgument,
            (_, 4) => ErrorKind::Unsupported,
            (_, 5) => ErrorKind::Refused,
            _ => ErrorKind::Corrupt,
        }
    }

    /// Exit status of a command that fails with this code.
    #[must_use]
    pub const fn exit_status(self) -> u8 {
        (self.number() / 1000) as u8
    }
}

/// An error: a stable [`Code`], a message, and where it happened.
#[derive(Debug)]
pub struct Error(Box<Details>);

#[derive(Debug)]
struct Details {
    code: Code,
    message: String,
    help: Option<String>,
    file: Option<PathBuf>,
    tensor: Option<String>,
    block: Option<u64>,
    offset: Option<u64>,
    source: Option<io::Error>,
}

impl Error {
    /// An error with a code and a message.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self(Box::new(Details {
            code,
            message: message.into(),
            help: None,
            file: None,
            tensor: None,
            block: None,
            offset: None,
            source: None,
        }))
    }

    /// A failed system call. A full disk becomes [`Code::NoSpace`], an early end
    /// of file [`Code::Truncated`].
    #[must_use]
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        let code = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Code::NoSpace,
            io::ErrorKind::UnexpectedEof => Code::Truncated,
            _ => Code::Io,
        };
        let mut error = Self::new(code, format!("{}: {source}", what.into()));
        error.0.source = Some(source);
        error
    }

    /// The value of `what` exceeds `limit`.
    #[must_use]
    pub fn limit(what: &str, value: u64, limit: u64) -> Self {
        Self::new(Code::Limit, format!("{what} is {value}, the limit is {limit}"))
            .with_help("raise the limit if you trust this file")
    }

    /// Adds what the user can do.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.0.help.get_or_insert_with(|| help.into());
        self
    }

    /// Adds the file, unless one is named already.
    #[must_use]
    pub fn in_file(mut self, file: impl AsRef<Path>) -> Self {
        self.0.file.get_or_insert_with(|| file.as_ref().to_owned());
        self
    }

    /// Adds the tensor's name, unless one is named already.
    #[must_use]
    pub fn in_tensor(mut self, tensor: &str) -> Self {
        self.0.tensor.get_or_insert_with(|| tensor.to_owned());
        self
    }

    /// Adds the number of the block inside its tensor, unless there is one.
    #[must_use]
    pub fn in_block(mut self, block: u64) -> Self {
        self.0.block.get_or_insert(block);
        self
    }

    /// Adds the offset in the file, in bytes, unless there is one.
    #[must_use]
    pub fn at(mut self, offset: u64) -> Self {
        self.0.offset.get_or_insert(offset);
        self
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.code
    }

    /// Who must act.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.code.kind()
    }

    /// The message alone, without place or help. Names from files in it are escaped.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What the user can do, if anything is known.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.0.help.as_deref()
    }

    /// The file concerned.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// The tensor concerned, as stored in the file (not escaped).
    #[must_use]
    pub fn tensor(&self) -> Option<&str> {
        self.0.tensor.as_deref()
    }

    /// The block of that tensor, counted from 0.
    #[must_use]
    pub fn block(&self) -> Option<u64> {
        self.0.block
    }

    /// The offset in the file, in bytes.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.0.offset
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let d = &self.0;
        f.write_str(&d.message)?;
        if let Some(file) = &d.file {
            write!(f, ", in {}", Escaped(&file.to_string_lossy()))?;
        }
        if let Some(tensor) = &d.tensor {
            write!(f, ", tensor {}", Escaped(tensor))?;
        }
        if let Some(block) = d.block {
            write!(f, ", block {block}")?;
        }
        if let Some(offset) = d.offset {
            write!(f, ", at byte {offset}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|e| e as _)
    }
}

/// Prints untrusted text with control and formatting characters escaped, so that
/// a name in a file cannot drive the terminal that shows it.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            let invisible = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
            if c.is_control() || invisible || c == '\\' {
                write!(f, "{}", c.escape_default())?;
            } else {
                fmt::Write::write_char(f, c)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_ascend_and_say_who_must_act() {
        assert!(Code::ALL.windows(2).all(|pair| pair[0].number() < pair[1].number()));
        for code in Code::ALL {
            assert!((1..=5).contains(&code.exit_status()), "{code:?}");
            let kind = match code.exit_status() {
                1 => ErrorKind::Failed,
                2 => ErrorKind::InvalidArgument,
                3 if *code == Code::Truncated => ErrorKind::Truncated,
                3 => ErrorKind::Corrupt,
                4 => ErrorKind::Unsupported,
                _ => ErrorKind::Refused,
            };
            assert_eq!(code.kind(), kind);
        }
    }

    #[test]
    fn the_first_place_named_stays() {
        let error = Error::new(Code::Malformed, "m").at(1).at(2).in_tensor("a\u{1b}").in_tensor("b").in_block(3);
        assert_eq!(error.to_string(), "m, tensor a\\u{1b}, block 3, at byte 1");
        assert_eq!((error.offset(), error.tensor(), error.block()), (Some(1), Some("a\u{1b}"), Some(3)));
    }
}
