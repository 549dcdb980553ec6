//! Against real arrays: set `COFFER_LAB` to a folder with a folder of `disk-*.img` for each case. Writes each best
//! candidate out as a sparse file to `COFFER_LAB_OUT`, if that is set, for other tools to look at.
#![allow(clippy::unwrap_used, dead_code)]

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use device::BlockDevice;
use rescue::{Image, plan, scan};

#[test]
fn real_arrays() {
    let Some(lab) = std::env::var_os("COFFER_LAB").map(PathBuf::from) else { return };
    let out = std::env::var_os("COFFER_LAB_OUT").map(PathBuf::from);
    let mut cases: Vec<PathBuf> = fs::read_dir(lab).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    for case in cases.iter().filter(|case| case.is_dir()) {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let files = fs::read_dir(case).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<PathBuf> =
            files.filter(|path| path.extension().is_some_and(|e| e == "img")).collect();
        files.sort();
        let images: Vec<Image> = files.iter().map(|path| Image::open(path).unwrap()).collect();
        let scan = scan(&images);
        let plan = plan(&images, &scan);
        let Some(best) = plan.candidates.first() else {
            println!("{name}: no candidate");
            continue;
        };
        println!(
            "{name}: {} candidates, {} {}: {:?}",
            plan.candidates.len(),
            best.score,
            best.shape,
            best.reasons
        );
        let Some(out) = &out else { continue };
        fs::create_dir_all(out).unwrap();
        fs::write(out.join(format!("{name}.plan")), plan.to_text().unwrap()).unwrap();
        let array = match best.open() {
            Ok(array) => array,
            Err(error) => {
                println!("{name}: {error}");
                continue;
            }
        };
        let file = fs::File::create(out.join(format!("{name}.img"))).unwrap();
        let size = array.size().unwrap();
        file.set_len(size).unwrap();
        let mut lost = 0;
        let mut buffer = vec![0; 1 << 20];
        let mut at = 0;
        while at < size {
            let length = (size - at).min(1 << 20) as usize;
            for range in array.read_around_losses(at, &mut buffer[..length]).unwrap() {
                lost += range.end - range.start;
                buffer[(range.start - at) as usize..(range.end - at) as usize].fill(0);
            }
            if buffer[..length].iter().any(|byte| *byte != 0) {
                file.write_all_at(&buffer[..length], at).unwrap();
            }
            at += length as u64;
        }
        println!("{name}: {size} bytes, {lost} lost");
    }
}
