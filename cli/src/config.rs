//! `cepa config`: where the file with the names is, and whether it is good.

use crate::args::Config;
use crate::columns::count;
use crate::exit::{self, Code, Failure};
use crate::{names, settings_file};

pub(crate) fn run(args: &Config) -> Result<(), Failure> {
    let path = settings_file::path()?;
    let file = path.display();
    match args {
        Config::Path => exit::print(&format!("{file}\n")),
        Config::Check if !path.exists() => {
            exit::print(&format!("{file}: not there, so no names are set\n"))
        }
        Config::Check => {
            let settings = settings_file::read()?;
            for name in settings.targets.keys() {
                let of_name = |why| Failure::new(Code::Usage, why);
                names::check(name).map_err(of_name)?;
            }
            let targets = count(settings.targets.len() as u64, "target");
            exit::print(&format!("{file}: valid; {targets}\n"))
        }
    }
}
