//! Has the templates of `roost plugin new` embedded again when a file is added to them.

fn main() {
    for folder in ["wit", "plugins/sdk/src", "examples/plugins"] {
        println!("cargo::rerun-if-changed=../../{folder}");
    }
}
