//! Which file systems are on the other side of a network.

use std::fs::File;

/// Magic numbers of network and user-space file systems (linux/magic.h and the file
/// systems' own sources), where mapped reads are slow or end in a signal.
#[cfg(target_os = "linux")]
const REMOTE: &[u32] = &[
    0x6969,      // NFS
    0x517b,      // SMB
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB 2
    0x6573_5546, // FUSE: sshfs, s3fs, gcsfuse
    0x0bd0_0bd0, // Lustre
    0x1983_0326, // BeeGFS (FhGFS)
    0x4750_4653, // GPFS
    0x00c3_6400, // Ceph
    0x0102_1997, // 9p
    0x5346_414f, // AFS
    0x7375_7245, // Coda
    0x013111a8,  // IBRIX
    0x6b41_4653, // kAFS
    0xaad7_aaea, // PanFS
];

/// Whether a file is better read than mapped. Unknown counts as remote.
#[cfg(target_os = "linux")]
pub(super) fn is_remote(file: &File) -> bool {
    // The type's width differs between platforms; the magic numbers have 32 bits.
    rustix::fs::fstatfs(file).map_or(true, |stat| REMOTE.contains(&(stat.f_type as u32)))
}

/// Elsewhere there is no list to go by: read, which is always right.
#[cfg(not(target_os = "linux"))]
pub(super) fn is_remote(_: &File) -> bool {
    true
}
