//! Embeds the UI again when it was rebuilt.

fn main() {
    println!("cargo::rerun-if-changed=../../ui/dist");
}
