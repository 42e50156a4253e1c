//! `cepa explain`: what an address means, layer by layer. The text is the library's.

use crate::args;
use crate::exit::{self, Failure};

pub(crate) fn run(args: &args::Explain) -> Result<(), Failure> {
    let text = cepa::stack::explain(&args.address).to_string();
    exit::print(&format!("{}\n", text.trim_end()))
}
