//! Writes the golden files. Run it when the format, an encoder or the list of codecs
//! changes on purpose, and look at what `git status` says then.

use std::fs;
use std::io::Result;

fn main() -> Result<()> {
    let folder = cmz_tests::golden_dir();
    fs::create_dir_all(&folder)?;
    let files = cmz_tests::golden::files();
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        if !files.iter().any(|(name, _)| entry.file_name() == name.as_str()) {
            fs::remove_file(entry.path())?;
        }
    }
    let (count, total) = (files.len(), files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>());
    for (name, bytes) in files {
        fs::write(folder.join(name), bytes)?;
    }
    println!("{count} files, {total} bytes, in {}", folder.display());
    Ok(())
}
