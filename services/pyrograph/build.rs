//! Embeds the UI anew when it was built anew.

fn main() {
    println!("cargo::rerun-if-changed=../../ui/dist");
}
