//! `cmz doctor`.

use cmz_codec::stream::tiered;
use cmz_gpu_decode::GpuDecoder;
use serde_json::json;

use crate::context::Context;
use crate::report::Report;
use crate::text::{size, table};

pub(crate) fn run(context: &Context) -> Report {
    let mut report = Report::default();
    let (major, minor) = cmz_format::VERSION;
    let paths: Vec<&str> = tiered::paths().map(tiered::Path::name).collect();
    let (best, others) = paths.split_first().map_or(("", ""), |(best, _)| (*best, paths.last().copied().unwrap_or("")));
    let mut rows = vec![
        ["cmz".to_owned(), env!("CARGO_PKG_VERSION").to_owned()],
        ["format".to_owned(), format!("{major}.{minor}")],
        ["system".to_owned(), format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)],
        ["instructions".to_owned(), if best == others { best.to_owned() } else { paths.join(", ") }],
        ["threads".to_owned(), context.threads.to_string()],
    ];
    // Loading the kernels shows whether the driver takes them.
    let gpu = GpuDecoder::open(0).and_then(|decoder| decoder.load_kernels().map(|()| decoder));
    let gpu_json = match &gpu {
        Ok(decoder) => {
            let device = decoder.device();
            let ((major, minor), driver) = (device.compute_capability, device.driver);
            rows.push(["gpu".to_owned(), format!("{}, {}", device.name, size(device.memory as u64))]);
            rows.push(["architecture".to_owned(), format!("sm_{major}{minor}")]);
            rows.push(["driver".to_owned(), format!("CUDA {}.{}", driver.0, driver.1)]);
            rows.push(["kernels".to_owned(), "loaded".to_owned()]);
            json!({
                "name": device.name,
                "memory": device.memory,
                "compute_capability": [major, minor],
                "cuda": [driver.0, driver.1],
            })
        }
        Err(e) => {
            rows.push(["gpu".to_owned(), format!("none: {}", e.message())]);
            json!({"reason": e.message(), "code": format!("CMZ{}", e.code().number())})
        }
    };
    let rows: Vec<Vec<String>> = rows.into_iter().map(Vec::from).collect();
    report.text = table(&["what", "here"], &[], &rows);
    report.json.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
    report.json.insert("format".to_owned(), json!([major, minor]));
    report.json.insert("instructions".to_owned(), json!(paths));
    report.json.insert("threads".to_owned(), context.threads.into());
    report.json.insert("gpu".to_owned(), gpu_json);
    report
}
