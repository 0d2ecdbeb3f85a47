//! Compiles the kernels, `cuda/*/*.cu`, into one static library when nvcc is there, and says so in one line when it is not.
//!
//! nvcc is looked for in CUDA_HOME, on PATH, and in the PyPI packages of `./.venv` (`make cuda`). Nothing of CUDA is linked: what
//! nvcc's objects call of its runtime is in src/backend/cuda/driver/registry.rs, and the driver is opened when a device is.
//! KIGO_CUDA_ARCHS narrows the list of targets ("90a" or "80,89,90a,ptx90"); KIGO_CUDA_QUICK=1 compiles in a third of the time kernels that
//! are slow, to see that they compile where there is no GPU to run them; KIGO_CUDA=0 leaves CUDA out. KIGO_CUDA=emulate
//! compiles the kernels for the host instead, and a driver, for tests without a GPU (emulate/emulate.h says what that shows), with
//! KIGO_EMULATE_SANITIZE=address,undefined under these sanitizers (scripts/sanitize.sh).
//!
//! Objects are kept in `kernels/` of the target folder, outside of any profile's, by a hash of all that they are made of: a file
//! is compiled once for each set of flags and targets, whatever is built of the library in between.

use std::env;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

/// Sets `cfg(kigo_cuda)` and the link flags, or prints why not.
pub fn build() {
    println!("cargo:rustc-check-cfg=cfg(kigo_cuda)");
    println!("cargo:rerun-if-changed=cuda/build.rs");
    println!("cargo:rerun-if-changed=cuda");
    for name in ["CUDA_HOME", "CUDA_PATH", "KIGO_CUDA_ARCHS", "KIGO_CUDA_QUICK", "KIGO_CUDA", "KIGO_EMULATE_SANITIZE"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    if env::var("KIGO_CUDA").is_ok_and(|v| v == "0") {
        return;
    }
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    if env::var("KIGO_CUDA").is_ok_and(|v| v == "emulate") {
        println!("cargo:rustc-env=KIGO_CUDA_TARGETS=80,90a");
        return emulate(&root);
    }
    let Some(nvcc) = find(&root) else {
        println!("cargo:warning=nvcc not found (CUDA_HOME, PATH, .venv): building without CUDA, for the CPU only");
        return;
    };
    let files = kernels(&root);
    // SAFETY: a build script's main thread, before any other is started; cc reads the compiler from here alone.
    #[allow(unsafe_code)]
    unsafe {
        env::set_var("NVCC", &nvcc);
    }
    // Code of 8.0 runs on every 8.x, so the text for devices yet to come is that of 9.0: clusters, barriers in shared memory,
    // the copy engine and dependent launches are in it; of 90a alone are wgmma and what goes with that.
    let archs = env::var("KIGO_CUDA_ARCHS").unwrap_or_else(|_| "80,89,90a,ptx90".to_string());
    let help = says(&nvcc, "--help");
    let quick = env::var("KIGO_CUDA_QUICK").is_ok_and(|v| v == "1") && help.contains("--Ofast-compile");
    // The driver unpacks an image when a kernel of it is first wanted.
    let small = help.contains("--compress-mode");
    let compile = |file: &Path| {
        let mut cc = cc::Build::new();
        if quick {
            cc.flag("-Ofc=max");
        }
        cc.cuda(true)
            .cudart("none")
            .cpp_link_stdlib(None)
            .warnings(false)
            .opt_level(3)
            .debug(false)
            .cargo_metadata(false);
        cc.flag("-std=c++17");
        if small {
            cc.flag("--compress-mode=size");
        }
        for arch in archs.split([',', ' ', ';']).filter(|a| !a.is_empty()) {
            let code = match arch.strip_prefix("ptx") {
                Some(text) => format!("arch=compute_{text},code=compute_{text}"),
                None => format!("arch=compute_{arch},code=sm_{arch}"),
            };
            cc.flag("-gencode").flag(&code);
        }
        // Without these the link pulls in libstdc++; the launchers stay private to the library.
        cc.flag("-Xcompiler=-fvisibility=hidden,-fno-exceptions,-fno-rtti,-fno-threadsafe-statics");
        cc.include(root.join("cuda")).file(file).compile_intermediates()
    };
    // File by file: of several at once cc makes relocatable device code, in which ptxas serializes wgmma.
    let objects = each(&files, &format!("{archs} {quick} {small} {}", compiler(&nvcc)), &root, &compile);
    cc::Build::new().objects(objects).compile("kigo_cuda");
    println!("cargo:rustc-env=KIGO_CUDA_TARGETS={archs}");
    println!("cargo:rustc-cfg=kigo_cuda");
}

/// The folders of kernels, by what these do. Files' names are unique across them.
const ROOMS: [&str; 8] = ["", "device", "load", "matmul", "matmul/prefill", "attention", "rows", "sample"];

/// The kernels' files.
fn kernels(root: &Path) -> Vec<PathBuf> {
    let of = |room: &&str| std::fs::read_dir(root.join("cuda").join(room)).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = ROOMS.iter().flat_map(of).map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "cu"));
    files.sort();
    files
}

/// What the file says, and those that it includes, all over.
fn text(file: &Path, root: &Path, seen: &mut Vec<PathBuf>) -> String {
    if seen.iter().any(|f| f == file) {
        return String::new();
    }
    seen.push(file.to_path_buf());
    let mut text = std::fs::read_to_string(file).unwrap_or_default();
    let names: Vec<String> =
        text.lines().filter_map(|l| Some(l.strip_prefix("#include \"")?.split('"').next()?.to_string())).collect();
    let here = file.parent().unwrap_or(root);
    for name in names {
        let found = [here.join(&name), root.join("cuda").join(&name), root.join("cuda/emulate").join(&name)];
        text += &found.iter().find(|f| f.is_file()).map_or(String::new(), |f| self::text(f, root, seen));
    }
    text
}

/// How many objects of a file are kept: of the targets and flags that somebody may come back to.
const KEPT: usize = 6;

/// Where objects are kept: `OUT_DIR` is `target/[triple/]profile/build/package/out`.
fn kernels_folder(out: &Path) -> PathBuf {
    let folder = out.ancestors().nth(4).unwrap_or(out).join("kernels");
    std::fs::create_dir_all(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    folder
}

/// What a program prints when it is asked.
fn says(program: &Path, question: &str) -> String {
    let output = std::process::Command::new(program).arg(question).output();
    output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default()
}

/// What a compiler says of its version, and what it takes from the environment.
fn compiler(program: &Path) -> String {
    let set = ["CXX", "CXXFLAGS", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"].map(|n| env::var(n).unwrap_or_default());
    format!("{} {set:?} {}", says(program, "--version"), env::var("TARGET").unwrap_or_default())
}

/// The objects of all files, several compilers at a time. One that was made of the same text by the same `flags` is kept.
fn each(files: &[PathBuf], flags: &str, root: &Path, compile: &(dyn Fn(&Path) -> Vec<PathBuf> + Sync)) -> Vec<PathBuf> {
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let folder = kernels_folder(&out);
    let compile = |file: &Path| {
        let mut hash = DefaultHasher::new();
        (text(file, root, &mut Vec::new()), flags, include_str!("build.rs")).hash(&mut hash);
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let kept = folder.join(format!("{stem}-{:016x}.o", hash.finish()));
        if !kept.is_file() {
            let [made] = &compile(file)[..] else { panic!("not one object of {}", file.display()) };
            std::fs::rename(made, &kept).expect("an object in its place");
            forget_the_oldest(&folder, &stem);
        }
        vec![kept]
    };
    let next = std::sync::atomic::AtomicUsize::new(0);
    let jobs = env::var("NUM_JOBS").ok().and_then(|n| n.parse().ok()).unwrap_or(1).clamp(1, files.len().max(1));
    let mut objects: Vec<PathBuf> = std::thread::scope(|scope| {
        let work = || {
            let mut mine = Vec::new();
            while let Some(file) = files.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                mine.extend(compile(file));
            }
            mine
        };
        let threads: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|t| t.join().expect("the compiler's thread")).collect()
    });
    objects.sort();
    objects
}

/// Leaves the newest objects of a file.
fn forget_the_oldest(folder: &Path, stem: &str) {
    let is_of = |path: &Path| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        name.rsplit_once('-').is_some_and(|(of, _)| of == stem)
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut objects: Vec<_> = entries
        .filter(|e| is_of(&e.path()))
        .filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())))
        .collect();
    objects.sort();
    for (_, path) in objects.iter().rev().skip(KEPT) {
        let _ = std::fs::remove_file(path);
    }
}

/// The kernels for the emulated device, and its driver.
fn emulate(root: &Path) {
    let mut files = kernels(root);
    files.push(root.join("cuda/emulate/emulate.cpp"));
    let sanitizers = env::var("KIGO_EMULATE_SANITIZE").unwrap_or_default();
    let compile = |file: &Path| {
        let mut cc = cc::Build::new();
        cc.cpp(true).cpp_link_stdlib(None).warnings(false).opt_level(2).debug(false).cargo_metadata(false);
        for flag in ["-std=c++17", "-march=x86-64-v3", "-ffp-contract=off", "-fno-math-errno", "-fno-strict-aliasing"] {
            cc.flag(flag);
        }
        for flag in [
            "-fvisibility=hidden",
            "-fno-exceptions",
            "-fno-rtti",
            "-fno-threadsafe-statics",
            "-ftls-model=initial-exec",
            "-Wno-psabi",
            "-xc++",
        ] {
            cc.flag(flag);
        }
        if !sanitizers.is_empty() {
            cc.flag(format!("-fsanitize={sanitizers}"))
                .flag("-fno-sanitize-recover=all")
                .flag("-fno-omit-frame-pointer");
            cc.flag("-g1").opt_level(1);
        }
        cc.include(root.join("cuda")).include(root.join("cuda/emulate")).file(file).compile_intermediates()
    };
    let cxx = env::var_os("CXX").map_or(PathBuf::from("c++"), PathBuf::from);
    let flags = format!("emulate {sanitizers} {}", compiler(&cxx));
    cc::Build::new().objects(each(&files, &flags, root, &compile)).compile("kigo_cuda");
    let driver = each(&[root.join("cuda/emulate/driver.cpp")], &flags, root, &compile);
    emulated_driver(&driver, &sanitizers);
    // The compiler's own runtimes: what rustc instruments with its own is not wanted here.
    for (name, library) in [("address", "asan"), ("undefined", "ubsan")] {
        if sanitizers.contains(name) {
            println!("cargo:rustc-link-arg=-l{library}");
        }
    }
    println!("cargo:rustc-cfg=kigo_cuda");
}

/// Links the emulated device's driver under both names that are looked for, in a folder where what is made of this package looks.
fn emulated_driver(objects: &[PathBuf], sanitizers: &str) {
    let folder = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("driver");
    std::fs::create_dir_all(&folder).expect("the driver's folder");
    let mut link = cc::Build::new().cargo_metadata(false).get_compiler().to_command();
    link.args(["-shared", "-Wl,-soname,libcuda.so.1", "-o"]).arg(folder.join("libcuda.so.1")).args(objects);
    if !sanitizers.is_empty() {
        link.arg(format!("-fsanitize={sanitizers}"));
    }
    assert!(link.status().is_ok_and(|status| status.success()), "the emulated driver is not to be linked: {link:?}");
    let other = folder.join("libcuda.so");
    if !other.exists() {
        std::os::unix::fs::symlink("libcuda.so.1", &other).expect("the driver's other name");
    }
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", folder.display());
    // cargo puts such a folder into LD_LIBRARY_PATH, for the programs that tests start.
    println!("cargo:rustc-link-search=native={}", folder.display());
}

/// nvcc.
fn find(root: &Path) -> Option<PathBuf> {
    let mut homes: Vec<PathBuf> =
        ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(env::var_os).map(PathBuf::from).collect();
    if let Some(path) = env::var_os("PATH") {
        for dir in env::split_paths(&path).filter(|d| d.join("nvcc").is_file()) {
            // A link such as /usr/bin/nvcc leads to its toolkit.
            let real = dir.join("nvcc").canonicalize().unwrap_or(dir.join("nvcc"));
            homes.extend(real.parent().and_then(Path::parent).map(Path::to_path_buf));
        }
    }
    let venv = root.join(".venv/lib");
    for python in std::fs::read_dir(venv).into_iter().flatten().flatten() {
        let packages = python.path().join("site-packages/nvidia");
        let mut found: Vec<PathBuf> =
            std::fs::read_dir(packages).into_iter().flatten().flatten().map(|e| e.path()).collect();
        found.sort();
        homes.extend(found);
    }
    homes.into_iter().map(|home| home.join("bin/nvcc")).find(|nvcc| nvcc.is_file())
}
