//! Gives a pause's memory back: pages of code and constants that lie in the page cache anyway are taken
//! out of the process before a long pause, and come back from there one by one as they are used again.
//! The system does the same by itself once memory is short; a device should not have to be short.
//!
//! Refuses whatever is not the file's own content: mappings that can be written, were ever written
//! (relocated constants are), are shared, have no file, or of which that is not known. Does nothing
//! while the process has a second thread, because that one could map something else in their place.

use std::{
    ffi::c_void,
    fs::{self, File},
    io::{self, BufRead, BufReader},
    ops::Range,
    ptr,
    time::Duration,
};

use lockgate_shared::failure::Chain;
use rustix::mm::{Advice, madvise};

use crate::log;

/// A pause shorter than this is not worth it: getting the pages back costs about 0.1 ms.
pub const LEAST_PAUSE: Duration = Duration::from_secs(10);

/// To be called as late as possible before a pause: all that runs afterwards is fetched again. A
/// failure changes nothing but the agent's size.
pub fn rest() {
    if let Err(error) = alone().and_then(|alone| if alone { give_back() } else { Ok(()) }) {
        log::debug(format!("the memory of code cannot be given back: {}", Chain(&error)));
    }
}

/// Whether this is the process's only thread: then there is no other while its caller is at work.
fn alone() -> io::Result<bool> {
    let status = fs::read_to_string("/proc/self/status")?;
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:"));
    Ok(threads.is_some_and(|threads| threads.trim() == "1"))
}

#[expect(
    unsafe_code,
    reason = "no safe function takes clean pages out of a process; nothing else in the agent is unsafe"
)]
fn give_back() -> io::Result<()> {
    for Range { start, end } in clean_files(BufReader::new(File::open("/proc/self/smaps")?))? {
        let address = ptr::without_provenance_mut::<c_void>(start);
        // SAFETY: `LinuxDontNeed` makes the next access read a private mapping from its file again.
        // `clean_files` chose only mappings without any page that differs from the file and that nobody
        // can write, so every byte reads the same before and after, references into it stay valid, and
        // the call does no more than the kernel may do at any moment when memory is short. The ranges
        // are still those mappings: they were read in this function, the process has one thread (`alone`,
        // the only way here), and nothing between maps or unmaps a file.
        unsafe { madvise(address, end.saturating_sub(start), Advice::LinuxDontNeed)? };
    }
    Ok(())
}

/// The mappings of /proc/self/smaps that are files' own content, read-only and as they lie on the disk,
/// and of which something is in memory.
fn clean_files(smaps: impl BufRead) -> io::Result<Vec<Range<usize>>> {
    let mut chosen = Vec::new();
    let mut mapping: Option<Mapping> = None;
    for line in smaps.lines() {
        let line = line?;
        if let Some(next) = Mapping::head(&line) {
            chosen.extend(mapping.replace(next).and_then(Mapping::chosen));
        } else if let Some(mapping) = &mut mapping {
            mapping.heed(&line);
        }
    }
    chosen.extend(mapping.and_then(Mapping::chosen));
    Ok(chosen)
}

/// One mapping, as far as it was read. Amounts are in KiB.
struct Mapping {
    pages: Range<usize>,
    /// Private, read-only, of a file with a path.
    of_file: bool,
    resident: Option<u64>,
    dirty: Option<u64>,
    anonymous: Option<u64>,
    swapped: Option<u64>,
}

impl Mapping {
    /// From the line that begins one: range, rights, offset, device, inode, path.
    fn head(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        let rights = words.next()?;
        let inode = words.nth(2)?;
        // The kernel's own mappings are called `[vdso]` and the like.
        let path = words.next().is_some_and(|path| path.starts_with('/'));
        Some(Self {
            pages: address(start)?..address(end)?,
            of_file: matches!(rights, "r-xp" | "r--p") && inode != "0" && path,
            resident: None,
            dirty: None,
            anonymous: None,
            swapped: None,
        })
    }

    fn heed(&mut self, line: &str) {
        let Some((name, amount)) = line.split_once(':') else { return };
        let place = match name {
            "Rss" => &mut self.resident,
            "Private_Dirty" => &mut self.dirty,
            "Anonymous" => &mut self.anonymous,
            "Swap" => &mut self.swapped,
            _ => return,
        };
        *place = amount.trim().strip_suffix(" kB").and_then(|amount| amount.parse().ok());
    }

    /// A page once written is anonymous or swapped out from then on, whatever the rights say by now.
    fn chosen(self) -> Option<Range<usize>> {
        let written = [self.dirty, self.anonymous, self.swapped];
        let clean = written.iter().all(|amount| *amount == Some(0));
        (self.of_file && clean && self.resident > Some(0)).then_some(self.pages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clean_code_and_constants_of_files_are_chosen() {
        for rights in ["r-xp", "r--p"] {
            assert_eq!(of(&mapping(rights, LIBRARY, [8, 0, 0, 0])), [(0x1000, 0x9000)], "{rights}");
        }
    }

    #[test]
    fn what_can_be_written_or_is_shared_is_never_chosen() {
        for rights in ["rw-p", "rwxp", "-w-p", "r--s", "r-xs", "rw-s", "---p"] {
            assert_eq!(of(&mapping(rights, LIBRARY, [8, 0, 0, 0])), [], "{rights}");
        }
    }

    #[test]
    fn what_has_no_file_is_never_chosen() {
        for file in
            ["00:00 0", "00:00 0    [vdso]", "00:00 0    [heap]", "00:00 0  /dev/zero", "fe:00 7"]
        {
            assert_eq!(of(&mapping("r-xp", file, [8, 0, 0, 0])), [], "{file}");
        }
    }

    #[test]
    fn what_was_ever_written_is_never_chosen_though_it_is_read_only_by_now() {
        // Relocated constants, a debugger's breakpoint, and either of them swapped out.
        for amounts in [[8, 4, 0, 0], [8, 0, 4, 0], [8, 4, 4, 0], [8, 0, 0, 4]] {
            assert_eq!(of(&mapping("r--p", LIBRARY, amounts)), [], "{amounts:?}");
        }
    }

    #[test]
    fn what_is_not_known_to_be_clean_is_never_chosen() {
        let whole = mapping("r-xp", LIBRARY, [8, 0, 0, 0]);
        for name in ["Rss", "Private_Dirty", "Anonymous", "Swap"] {
            let without: String = whole
                .lines()
                .filter(|line| !line.starts_with(&format!("{name}:")))
                .map(|line| format!("{line}\n"))
                .collect();
            assert_eq!(of(&without), [], "without {name}");
            assert_eq!(
                of(&whole.replace(&format!("{name}: "), &format!("{name}: x"))),
                [],
                "{name}"
            );
        }
        assert_eq!(of("nonsense\n\n1000-zz r-xp 0 fe:00 7 /lib/a\nRss: 8 kB\n"), []);
    }

    #[test]
    fn each_mapping_is_judged_by_its_own_amounts() {
        let dirty = mapping("r--p", LIBRARY, [8, 0, 8, 0]);
        let clean = mapping("r-xp", LIBRARY, [8, 0, 0, 0]).replace("1000-9000", "a000-b000");
        assert_eq!(of(&format!("{dirty}{clean}{dirty}")), [(0xa000, 0xb000)]);
        assert_eq!(of(&format!("{clean}{dirty}")), [(0xa000, 0xb000)]);
    }

    #[test]
    fn of_this_process_nothing_is_chosen_that_could_be_written() {
        let maps = fs::read_to_string("/proc/self/maps").expect("read");
        let smaps = BufReader::new(File::open("/proc/self/smaps").expect("opened"));
        let chosen = clean_files(smaps).expect("read");
        assert!(!chosen.is_empty(), "the code that runs here is in memory");
        for pages in chosen {
            let range = format!("{:x}-{:x} ", pages.start, pages.end);
            let line = maps.lines().find_map(|line| line.strip_prefix(&range)).expect("mapped");
            assert!(line.starts_with("r-") && line.contains('/'), "{line}");
        }
    }

    const LIBRARY: &str = "fe:00 1234     /usr/lib/x86_64-linux-gnu/libc.so.6";

    /// A mapping as the kernel writes it; amounts are Rss, Private_Dirty, Anonymous, Swap.
    fn mapping(rights: &str, file: &str, [rss, dirty, anonymous, swap]: [u64; 4]) -> String {
        format!(
            "1000-9000 {rights} 00000000 {file}\nSize:                 32 kB\nRss:                  {rss} kB\n\
             Private_Dirty:         {dirty} kB\nAnonymous:             {anonymous} kB\nSwap:                  {swap} kB\n\
             SwapPss:               0 kB\nTHPeligible:           0\nVmFlags: rd ex mr mw me\n"
        )
    }

    fn of(smaps: &str) -> Vec<(usize, usize)> {
        let chosen = clean_files(smaps.as_bytes()).expect("read");
        chosen.into_iter().map(|pages| (pages.start, pages.end)).collect()
    }
}
