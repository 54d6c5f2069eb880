//! Tables that are the same for all streams of a codec: once in the memory of the device, however many streams use them.

use std::sync::{Arc, Mutex, PoisonError};

use cmz_codec::Result;
use cmz_codec::stream::dictionary;
use cudarc::driver::CudaContext;

use crate::memory::{DeviceMemory, failed};

/// The tables of a decoder, each copied to the device when it is first asked for.
#[derive(Debug)]
pub(crate) struct Tables {
    context: Arc<CudaContext>,
    dictionary: Mutex<Option<DeviceMemory>>,
}

impl Tables {
    pub(crate) fn new(context: Arc<CudaContext>) -> Self {
        Self { context, dictionary: Mutex::default() }
    }

    /// Address of the dictionary, 512 KiB.
    pub(crate) fn dictionary(&self) -> Result<u64> {
        let mut dictionary = self.dictionary.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(memory) = &*dictionary {
            return Ok(memory.address());
        }
        let bytes: Vec<u8> = dictionary::device_table().iter().flat_map(|entry| entry.to_le_bytes()).collect();
        let mut memory = DeviceMemory::new(&self.context, bytes.len())?;
        let stream = self.context.new_stream().map_err(failed("make a stream"))?;
        memory.write(&stream, 0, &bytes)?;
        Ok(dictionary.insert(memory).address())
    }
}
