//! Makes the messages and services of `farm.proto`; no program beside this one is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = "proto/bombproof/farm/v1/farm.proto";
    println!("cargo::rerun-if-changed={file}");
    let descriptors = protox::compile([file], ["proto"])?;
    tonic_prost_build::configure().build_transport(false).compile_fds(descriptors)?;
    Ok(())
}
