//! Arrays that are put together from planes and other arrays, one step for each.

use arrayvec::ArrayVec;
use cmz_codec::device::{
    DeviceArray, DeviceComponent, DeviceFloat, DeviceJoin, DeviceMode, DeviceNode, DevicePermute, DeviceShift,
    DeviceSparse, DeviceTernary,
};
use cmz_codec::{Code, Error, Result};

use super::{Builder, Destination, Source, Step, Task, job};
use crate::job::{Job, Join, OTHERS, Plane, Ternary};
use crate::kernel::Kernel;
use crate::parameters;

/// Components of an array, at most.
const COMPONENTS: usize = 1 + OTHERS;

/// A kernel that reads its components at any index, and what it is told.
struct Assembly {
    kernel: Kernel,
    /// Bytes of an element.
    element_len: usize,
    /// What the components are, if not symbols.
    kinds: [Option<DeviceFloat>; 3],
    table: Vec<u8>,
}

impl Builder<'_> {
    /// Makes the jobs that put an array together, those of its components first. Returns the step of the last one.
    pub(super) fn array(&mut self, array: &DeviceArray<'_>, to: Destination) -> Result<Step> {
        let elements = |element: DeviceFloat| (array.byte_len / element.bytes()) as u32;
        let assembly = match array.node {
            DeviceNode::Join(join) => return self.joined(array, join, to),
            DeviceNode::Ternary(ternary) => return self.ternary(array, ternary, to),
            DeviceNode::Sparse(sparse) => return self.sparse(array, &sparse, to),
            DeviceNode::Permute(permute) => return self.permuted(array, &permute, to),
            DeviceNode::Affine(affine) => {
                let numbers = matches!(affine.shift, DeviceShift::Bias | DeviceShift::Zero);
                Assembly {
                    kernel: Kernel::Affine,
                    element_len: affine.element.bytes(),
                    kinds: [None, Some(affine.scale), numbers.then_some(affine.scale)],
                    table: parameters::affine(&affine, elements(affine.element)),
                }
            }
            DeviceNode::BlockScale(scheme) => Assembly {
                kernel: Kernel::BlockScale,
                element_len: scheme.element.bytes(),
                kinds: [Some(scheme.values), Some(scheme.scale), None],
                table: parameters::block_scale(&scheme, elements(scheme.element)),
            },
            DeviceNode::Codebook(codebook) => Assembly {
                kernel: Kernel::Codebook,
                element_len: codebook.element.bytes(),
                kinds: [None, Some(codebook.table), Some(codebook.table)],
                table: parameters::codebook(&codebook),
            },
            DeviceNode::LowRank(product) => Assembly {
                kernel: Kernel::LowRank,
                element_len: product.element.bytes(),
                kinds: [product.element, product.factors, product.factors].map(Some),
                table: parameters::low_rank(&product, elements(product.element)),
            },
        };
        self.assembled(array, &assembly, to)
    }

    /// Symbols, and the two numbers of their groups, which are arrays.
    fn ternary(&mut self, array: &DeviceArray<'_>, ternary: DeviceTernary, to: Destination) -> Result<Step> {
        let [symbols, numbers @ ..] = &array.components[..] else { return Err(lacking()) };
        let (kernel, source, mut ready) = match symbols {
            DeviceComponent::Stream(stream) => {
                let (kernel, source) = self.source(stream)?;
                (kernel, source, 0)
            }
            DeviceComponent::Array(_) => {
                let (plane, ready) = self.component(symbols)?;
                (Kernel::Direct, Source::plane(plane, 8), ready)
            }
        };
        let mut planes: ArrayVec<Plane, OTHERS> = ArrayVec::new();
        for component in numbers {
            let (plane, step) = self.component(component)?;
            ready = ready.max(step);
            planes.push(plane.of_numbers(DeviceFloat::Bf16));
        }
        let elements = array.byte_len / ternary.element.bytes();
        let count = u32::try_from(ternary.groups.count(elements as u32));
        let count = count.map_err(|_| Error::new(Code::BadStream, "the array has too many groups"))?;
        let (wanted, out) = to.elements(elements, ternary.element.bytes());
        let job = job(source, Join::ternary(ternary.element), &planes, elements, wanted, (to.place, out));
        let job = Job { ternary: Ternary::of(&ternary, count), ..job };
        self.push(Task { step: ready, kernel, job });
        Ok(ready)
    }

    fn assembled(&mut self, array: &DeviceArray<'_>, assembly: &Assembly, to: Destination) -> Result<Step> {
        let elements = array.byte_len / assembly.element_len;
        let mut planes: ArrayVec<Plane, COMPONENTS> = ArrayVec::new();
        let mut ready = 0;
        for (component, kind) in array.components.iter().zip(assembly.kinds) {
            let (plane, step) = self.component(component)?;
            ready = ready.max(step);
            planes.push(kind.map_or(plane, |kind| plane.of_numbers(kind)));
        }
        let Some((&first, others)) = planes.split_first() else { return Err(lacking()) };
        let source = self.told(first, &assembly.table);
        let (wanted, out) = to.elements(elements, assembly.element_len);
        let job = job(source, DeviceJoin::Bytes.into(), others, elements, wanted, (to.place, out));
        self.push(Task { step: ready, kernel: assembly.kernel, job });
        Ok(ready)
    }

    /// Values at places of an array that is decoded where they go, or of zeros there.
    fn sparse(&mut self, array: &DeviceArray<'_>, sparse: &DeviceSparse, to: Destination) -> Result<Step> {
        let (base, rest) = match (sparse.mode, &array.components[..]) {
            (DeviceMode::Fill, rest) => (None, rest),
            (_, [DeviceComponent::Array(base), rest @ ..]) => (Some(base), rest),
            _ => return Err(lacking()),
        };
        let (Some(DeviceComponent::Stream(index)), Some(values)) = (rest.get(rest.len().wrapping_sub(2)), rest.last())
        else {
            return Err(lacking());
        };
        let before = match base {
            Some(base) => self.array(base, to.clone())?,
            None => {
                let zeros = Source::plane(Plane::NONE, 8);
                self.join(Kernel::Direct, DeviceJoin::Bytes, zeros, &[], array.byte_len, to.clone(), 0);
                0
            }
        };
        let (places, places_ready) = self.stream(index, |_| true)?;
        let (values, values_ready) = self.component(values)?;
        let values = values.of_numbers(sparse.values);
        let count = values.length / sparse.values.bytes() as u32;
        if count == 0 {
            return Ok(before);
        }
        let elements = array.byte_len / sparse.element.bytes();
        let (wanted, out) = to.elements(elements, sparse.element.bytes());
        let mut job =
            job(Source::plane(places, 8), DeviceJoin::Bytes.into(), &[values], elements, wanted, (to.place, out));
        let source = self.told(places, &parameters::sparse(sparse, &job, count, &array.told));
        (job.table, job.table_len) = (source.table, source.table_len);
        parameters::Units::new(sparse, elements as u32).put(&mut job);
        let step = places_ready.max(values_ready).max(before + 1);
        self.push(Task { step, kernel: Kernel::Sparse, job });
        Ok(step)
    }

    /// The columns of an array in another order.
    fn permuted(&mut self, array: &DeviceArray<'_>, permute: &DevicePermute, to: Destination) -> Result<Step> {
        let Some(inner) = array.components.first() else { return Err(lacking()) };
        let (plane, ready) = self.component(inner)?;
        let len = permute.element_len as usize;
        let source = self.told(Plane { stride: 8 * len as u8, ..plane }, &parameters::permute(permute, &array.told));
        let (wanted, out) = to.elements(array.byte_len / len, len);
        let job = job(source, DeviceJoin::Bytes.into(), &[], array.byte_len / len, wanted, (to.place, out));
        self.push(Task { step: ready, kernel: Kernel::Permute, job });
        Ok(ready)
    }

    /// A plane with a table that the kernel reads.
    fn told(&mut self, plane: Plane, table: &[u8]) -> Source {
        let (offset, bytes) = self.region.take(table.len());
        bytes.copy_from_slice(table);
        Source { table: offset, table_len: (table.len() / 4) as u32, ..Source::plane(plane, 8) }
    }
}

fn lacking() -> Error {
    Error::new(Code::BadStream, "the array lacks a component")
}
