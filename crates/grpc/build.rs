//! Makes Rust of the descriptions in proto/: messages, the traits that servers implement, and the descriptors for reflection.

use std::path::Path;

const FILES: [&str; 2] = ["kvstore.proto", "annulet/v1/annulet.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    for file in FILES {
        println!("cargo::rerun-if-changed={}", proto.join(file).display());
    }
    // In Rust, so that nobody needs protoc.
    let descriptors = protox::compile(FILES, [&proto])?;
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&out).join("descriptors.bin"), encoded(&descriptors))?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .bytes(".annulet.v1")
        .compile_fds(descriptors)?;
    Ok(())
}

/// Without comments: reflection has no use for them.
fn encoded(descriptors: &protox::prost_reflect::prost_types::FileDescriptorSet) -> Vec<u8> {
    use protox::prost::Message;
    let mut descriptors = descriptors.clone();
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    descriptors.encode_to_vec()
}
