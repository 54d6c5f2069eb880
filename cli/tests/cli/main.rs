//! The command as a user runs it: the real binary on real files.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod badinput;
mod base;
mod common;
mod convert;
mod extract;
mod folder;
mod gpu;
mod import;
mod interrupt;
mod lossy;
mod quantized;
mod show;
mod usage;
