//! What a VM promises, on real KVM with guests of our own: the same promises over every backend,
//! and those that only a worker process can make.

mod both;
mod fixture;
mod hostile;
mod process;
