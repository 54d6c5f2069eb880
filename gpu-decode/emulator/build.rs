//! Compiles the emulator and the listed kernels into one shared library that looks like libcuda.
//!
//! `CMZ_EMU_SANITIZE` (`address,undefined` or `thread`) instruments the kernels; `CMZ_EMU_UCONTEXT` switches fibers
//! by ucontext, as machines other than x86-64 do.
#![allow(clippy::unwrap_used, reason = "a build script ends with its message")]

#[path = "../../xtask/src/list.rs"]
mod list;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::{env, fs, thread};

use list::Kernel;

const ENGINE: &[&str] = &["fiber.cpp", "engine.cpp", "launch.cpp", "driver.cpp", "stream.cpp", "memory.cpp"];
/// Kernels that only the emulator's own tests run.
const SELF_TEST: &str = "self_test.cu";

/// Runs the C++ compiler with the flags of every step.
struct Compiler {
    tool: cc::Tool,
    flags: Vec<String>,
    out: PathBuf,
}

impl Compiler {
    fn run(&self, arguments: &[String]) {
        let status = self.tool.to_command().args(&self.flags).args(arguments).current_dir(&self.out).status();
        match status {
            Ok(status) if status.success() => {}
            Ok(_) => panic!("the C++ compiler failed: {}", arguments.join(" ")),
            Err(e) => panic!("the C++ compiler could not be started ({e}): {INSTALL}"),
        }
    }

    /// Compiles `source` with `flags`; returns the object's name.
    fn compile(&self, source: &Path, flags: &[&str]) -> String {
        let object = format!("{}.o", source.file_stem().unwrap().display());
        let mut arguments: Vec<String> = flags.iter().map(ToString::to_string).collect();
        arguments.extend(["-c".into(), source.display().to_string(), "-o".into(), object.clone()]);
        self.run(&arguments);
        object
    }

    /// Compiles all of them, as many at a time as cargo allows.
    fn compile_all(&self, sources: Vec<(PathBuf, &[&str])>) -> Vec<String> {
        let jobs = env::var("NUM_JOBS").unwrap().parse().unwrap();
        let sources = Mutex::new(sources.into_iter());
        let work = || {
            let next = || sources.lock().unwrap().next();
            std::iter::from_fn(next).map(|(source, flags)| self.compile(&source, flags)).collect::<Vec<_>>()
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        })
    }
}

const INSTALL: &str =
    "the GPU tests need a C++17 compiler, e.g. g++ (Debian and Ubuntu: apt install g++; Fedora: dnf install gcc-c++)";

fn main() {
    let crate_root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").unwrap());
    let root = crate_root.join("../..").canonicalize().unwrap();
    let cpp = crate_root.join("cpp");
    let out = PathBuf::from(env::var("OUT_DIR").unwrap());
    let kernels = list::kernels(&root);
    let sanitizers = variable("CMZ_EMU_SANITIZE");

    let tool = cc::Build::new().cpp(true).cargo_warnings(false).try_get_compiler();
    let tool = tool.unwrap_or_else(|e| panic!("no C++ compiler ({e}): {INSTALL}"));
    let compiler = Compiler { tool, flags: common_flags(&root, &cpp), out: out.clone() };

    let sanitize = sanitizers.as_ref().map(|names| format!("-fsanitize={names}"));
    let of_kernels: &[&str] = match &sanitize {
        // A finding of UndefinedBehaviorSanitizer must fail the test, not only be printed.
        Some(flag) => &["-O1", flag, "-fno-sanitize-recover=all"],
        None => &["-O2"],
    };
    let engine = ENGINE.iter().map(|file| (cpp.join(file), &["-O2", "-Wextra"][..]));
    let kernel_sources = kernel_files(&kernels, &cpp, &out).into_iter().map(|source| (source, of_kernels));
    // Kernels take longest.
    let objects = compiler.compile_all(kernel_sources.chain(engine).collect());
    let library = link(&compiler, objects, sanitize);

    let names: Vec<&str> = kernels.iter().map(|kernel| kernel.name.as_str()).collect();
    println!("cargo:rustc-env=CMZ_FAKE_CUDA={}", library.display());
    println!("cargo:rustc-env=CMZ_KERNELS={}", names.join(" "));
    for path in list::INCLUDE.iter().map(|folder| root.join(folder)).chain(kernels.into_iter().map(|k| k.source)) {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    println!("cargo:rerun-if-changed={}", cpp.display());
    println!("cargo:rerun-if-changed={}", root.join("xtask/src/list.rs").display());
}

fn variable(name: &str) -> Option<String> {
    println!("cargo:rerun-if-env-changed={name}");
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn common_flags(root: &Path, cpp: &Path) -> Vec<String> {
    let mut flags: Vec<String> =
        ["-std=c++17", "-g", "-fPIC", "-fvisibility=hidden", "-pthread", "-Wall", "-Wno-unknown-pragmas"]
            .map(String::from)
            .into();
    // Kernels say which operations are fused.
    flags.push("-ffp-contract=off".into());
    if env::var("CARGO_CFG_TARGET_ARCH").unwrap() == "x86_64" {
        // Thread-locals of a library that is loaded at run time: by descriptors, as other architectures do anyway.
        flags.push("-mtls-dialect=gnu2".into());
    }
    if variable("CMZ_EMU_UCONTEXT").is_some() {
        flags.push("-DEMU_UCONTEXT".into());
    }
    flags.push(format!("-I{}", cpp.display()));
    flags.extend(list::INCLUDE.iter().map(|folder| format!("-I{}", root.join(folder).display())));
    flags
}

/// Writes a C++ file for each kernel, so that no kernel sees another's names; returns them.
fn kernel_files(kernels: &[Kernel], cpp: &Path, out: &Path) -> Vec<PathBuf> {
    let generated = kernels.iter().map(|kernel| {
        let file = out.join(format!("kernel_{}.cpp", kernel.name));
        let (source, name) = (kernel.source.display(), &kernel.name);
        fs::write(&file, format!("#include \"cuda_emu.h\"\n#include \"{source}\"\nEMU_KERNEL({name})\n")).unwrap();
        file
    });
    let mut files: Vec<PathBuf> = generated.collect();
    let self_test = out.join("self_test.cpp");
    fs::write(&self_test, format!("#include \"cuda_emu.h\"\n#include \"{}\"\n", cpp.join(SELF_TEST).display()))
        .unwrap();
    files.push(self_test);
    files
}

fn link(compiler: &Compiler, objects: Vec<String>, sanitize: Option<String>) -> PathBuf {
    let library = compiler.out.join("libcmz_fakecuda.so");
    // Under this name a library that has been loaded by its path answers a later dlopen("libcuda.so").
    let mut arguments: Vec<String> = vec!["-shared".into(), "-Wl,-soname,libcuda.so".into(), "-o".into()];
    arguments.push(library.display().to_string());
    arguments.extend(objects);
    arguments.extend(sanitize);
    compiler.run(&arguments);
    library
}
