//! Makes the messages and services of `farm.proto`; no program beside this one is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = "proto/bombproof/farm/v1/farm.proto";
    println!("cargo::rerun-if-changed={file}");
    let descriptors = protox::compile([file], ["proto"])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    // The same for clients that ask the server what it has: without what is said for people.
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(false).open_file(file)?;
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?).join("farm.descriptors");
    std::fs::write(out, compiler.encode_file_descriptor_set())?;
    Ok(())
}
