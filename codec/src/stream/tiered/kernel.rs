//! What a machine must do fast for this codec, and the ways that are there to do it.

use std::fmt;
use std::sync::OnceLock;

use super::{Decoder, Encoder, TILE};
use crate::Scratch;
use crate::prefetch;
use crate::stream::{StreamError, Width};

/// Elements that one step of a kernel handles; a plane word holds their bits.
pub(super) const STEP: usize = 64;
/// Bytes that a kernel may read behind the end of a plane pair.
pub(super) const PLANE_SLACK: usize = 7;

/// The symbols of one tier. A step behind the last element may be read or written.
pub(super) type TierBuffer = [u8; TILE + STEP];

/// The two bit planes of one tier, inside bytes that may be read a little further.
#[derive(Clone, Copy)]
pub(super) struct Planes<'a> {
    bytes: &'a [u8],
    elements: usize,
}

impl<'a> Planes<'a> {
    /// The planes at the start of `bytes`.
    ///
    /// # Panics
    /// If there are more elements than a tile has, or fewer than [`PLANE_SLACK`] bytes
    /// behind the planes.
    pub(super) fn new(bytes: &'a [u8], elements: usize) -> Self {
        assert!(elements <= TILE && bytes.len() >= 2 * elements.div_ceil(8) + PLANE_SLACK, "planes without slack");
        Self { bytes, elements }
    }

    /// Elements of the tier: at most [`TILE`].
    pub(super) fn elements(&self) -> usize {
        self.elements
    }

    /// Steps that cover the elements.
    pub(super) fn steps(&self) -> usize {
        self.elements.div_ceil(STEP)
    }

    /// The low and the high plane with everything behind them. `8 * steps()` bytes of
    /// either are there; those behind the plane mean nothing.
    pub(super) fn split(&self) -> (&'a [u8], &'a [u8]) {
        (self.bytes, &self.bytes[self.elements.div_ceil(8)..])
    }
}

/// The two bit planes of one tier, as the encoder makes them: bit `i % 64` of word
/// `i / 64` is element `i`'s.
#[derive(Debug)]
pub(super) struct PlaneWords {
    pub(super) low: [u64; TILE / STEP],
    pub(super) high: [u64; TILE / STEP],
}

/// The inner loops of the codec. A kernel exists only where it may run; it neither
/// allocates nor fails, and no argument makes it leave its arguments' bounds.
pub(super) trait Kernel: fmt::Debug + Send + Sync {
    /// Name in test failures and benchmarks.
    fn name(&self) -> &'static str;

    /// Escapes of a tier: bits that are set in both planes, which are of one length.
    fn escapes(&self, low: &[u8], high: &[u8]) -> usize;

    /// Decodes one tier, whose escapes are the first bytes of `below`.
    ///
    /// # Panics
    /// If `out` has no room for whole steps.
    fn decode_tier(&self, planes: Planes<'_>, named: [u8; 3], below: &TierBuffer, out: &mut [u8]);

    /// Decodes tier 0 of a whole tile of BF16 exponents and joins it with the signs and mantissas.
    ///
    /// # Panics
    /// If the tier is not a whole tile.
    fn decode_bf16(
        &self,
        planes: Planes<'_>,
        named: [u8; 3],
        below: &TierBuffer,
        sign_mantissa: &[u8; TILE],
        out: &mut [u8; 2 * TILE],
    );

    /// Codes the first `elements` of `symbols` as one tier and collects the escapes;
    /// returns how many there are. Plane bits behind the last element are zero.
    ///
    /// # Panics
    /// If `symbols` ends before the last step, or there is more than a tile.
    fn encode_tier(
        &self,
        symbols: &[u8],
        elements: usize,
        named: [u8; 3],
        planes: &mut PlaneWords,
        escaped: &mut TierBuffer,
    ) -> usize;

    /// Splits a tile of BF16 elements and codes the exponents as tier 0.
    fn encode_bf16(
        &self,
        data: &[u8; 2 * TILE],
        named: [u8; 3],
        planes: &mut PlaneWords,
        escaped: &mut TierBuffer,
        sign_mantissa: &mut [u8; TILE],
    ) -> usize;
}

/// Memory of the codec between blocks.
#[derive(Debug)]
pub(crate) struct Buffers {
    /// Symbols of even and odd tiers.
    pub(super) tiers: [TierBuffer; 2],
    /// A tile with slack behind it.
    pub(super) tile: [u8; 2 * TILE + STEP],
    pub(super) planes: PlaneWords,
}

impl Default for Buffers {
    fn default() -> Self {
        let planes = PlaneWords { low: [0; TILE / STEP], high: [0; TILE / STEP] };
        Self { tiers: [[0; TILE + STEP]; 2], tile: [0; 2 * TILE + STEP], planes }
    }
}

/// One way to run the codec on this machine. All of them read and write the same bytes
/// and refuse the same streams; they differ in speed.
#[derive(Clone, Copy, Debug)]
pub struct Path(&'static dyn Kernel);

/// Every path that this machine has, the fastest first; the last is portable.
pub fn paths() -> impl Iterator<Item = Path> {
    static KERNELS: OnceLock<Vec<Box<dyn Kernel>>> = OnceLock::new();
    KERNELS.get_or_init(kernels).iter().map(|kernel| Path(&**kernel))
}

fn kernels() -> Vec<Box<dyn Kernel>> {
    let mut kernels: Vec<Box<dyn Kernel>> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        kernels.extend(super::avx512::Avx512::new().map(|kernel| Box::new(kernel) as Box<dyn Kernel>));
        kernels.extend(super::avx2::Avx2::new().map(|kernel| Box::new(kernel) as Box<dyn Kernel>));
    }
    #[cfg(target_arch = "aarch64")]
    kernels.extend(super::neon::Neon::new().map(|kernel| Box::new(kernel) as Box<dyn Kernel>));
    kernels.push(Box::new(super::portable::Portable));
    kernels
}

impl Path {
    /// The fastest path of this machine.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "there always is the portable path")]
    pub fn best() -> Self {
        paths().next().expect("the portable path is always there")
    }

    /// Name for test failures and benchmarks: `avx512`, `avx2`, `neon` or `portable`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    pub(super) fn kernel(self) -> &'static dyn Kernel {
        self.0
    }

    /// Appends the stream for `symbols` to `out`.
    pub fn encode(self, symbols: &[u8], scratch: &mut Scratch, out: &mut Vec<u8>) {
        let mut encoder = Encoder::new(
            self,
            symbols.len(),
            |run| symbols[run].iter().copied(),
            |run| prefetch::all(&symbols[run]),
            out,
        );
        scratch.with::<Buffers, _>(|buffers, _| symbols.chunks(TILE).for_each(|tile| encoder.tile(tile, buffers)));
    }

    /// Decodes `stream` into exactly `symbols`.
    ///
    /// # Errors
    /// If `stream` is not the code of an array of this length and width.
    pub fn decode(
        self,
        stream: &[u8],
        width: Width,
        scratch: &mut Scratch,
        symbols: &mut [u8],
    ) -> Result<(), StreamError> {
        let decoder = Decoder::new(self, stream, width, symbols.len())?;
        scratch.with::<Buffers, _>(|buffers, _| decoder.all(buffers, symbols))
    }
}
