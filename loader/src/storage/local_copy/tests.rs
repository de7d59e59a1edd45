use std::os::unix::fs::MetadataExt;

use super::super::shards_dir;
use super::*;
use crate::testing::config;

/// Returns the golden data set of the format, four shards of two splits, in a directory of its own.
fn source(root: &Path) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/dataset");
    let source = root.join("golden.shards");
    fs::create_dir(&source).unwrap();
    for entry in fs::read_dir(golden).unwrap() {
        let entry = entry.unwrap();
        // Not copied: a checkout may be read-only, and some tests spoil what they copied.
        fs::write(
            source.join(entry.file_name()),
            fs::read(entry.path()).unwrap(),
        )
        .unwrap();
    }
    source
}

fn shard_names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_copy_is_the_data_set_and_is_made_once() {
    let root = tempfile::tempdir().unwrap();
    let (source, local) = (source(root.path()), root.path().join("local/deep"));
    let target = complete(&source, &local).unwrap();
    let manifest = Manifest::read(&source).unwrap();
    assert_eq!(target.parent(), Some(&*local));
    let dataset = shardtool::Dataset::open(&target).unwrap();
    assert_eq!(dataset.manifest().checksum(), manifest.checksum());
    let mut expected: Vec<&str> = records(&manifest).map(|record| &*record.file).collect();
    expected.extend([MANIFEST_FILE, LOCK]);
    expected.sort_unstable();
    assert_eq!(shard_names(&target), expected);
    // The second time nothing is read but the manifest.
    for record in records(&manifest) {
        fs::remove_file(source.join(&record.file)).unwrap();
    }
    assert_eq!(complete(&source, &local).unwrap(), target);
}

#[test]
fn an_interrupted_copy_is_continued() {
    let root = tempfile::tempdir().unwrap();
    let (source, local) = (source(root.path()), root.path().join("local"));
    let target = complete(&source, &local).unwrap();
    let manifest = Manifest::read(&source).unwrap();
    let files: Vec<&ShardRecord> = records(&manifest).collect();
    // As a kill leaves it: one shard whole, one cut short under its name, one half copied, no manifest.
    let kept = target.join(&files[0].file);
    let inode = fs::metadata(&kept).unwrap().ino();
    let cut = target.join(&files[1].file);
    let bytes = fs::read(&cut).unwrap();
    fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    fs::rename(target.join(&files[2].file), part(&target, files[2])).unwrap();
    fs::remove_file(target.join(MANIFEST_FILE)).unwrap();
    fs::remove_file(source.join(&files[0].file)).unwrap(); // not needed any more

    assert_eq!(complete(&source, &local).unwrap(), target);
    assert_eq!(
        fs::metadata(&kept).unwrap().ino(),
        inode,
        "not copied again"
    );
    assert_eq!(fs::read(&cut).unwrap(), bytes);
    shardtool::Dataset::open(&target).unwrap();
    assert!(!part(&target, files[2]).exists());
}

#[test]
fn a_damaged_copy_is_made_anew_at_the_next_start() {
    let root = tempfile::tempdir().unwrap();
    let (source, local) = (source(root.path()), root.path().join("local"));
    let target = complete(&source, &local).unwrap();
    let manifest = Manifest::read(&source).unwrap();
    let files: Vec<&ShardRecord> = records(&manifest).collect();
    let [kept, zeroed, spoilt] = [0, 1, 2].map(|number: usize| target.join(&files[number].file));
    let inode = fs::metadata(&kept).unwrap().ino();
    let whole = [&zeroed, &spoilt].map(|path| fs::read(path).unwrap());
    // As a power cut leaves a file that was not synced: of the right size, and zeros.
    fs::write(&zeroed, vec![0; whole[0].len()]).unwrap();
    let mut bytes = whole[1].clone();
    *bytes.last_mut().unwrap() ^= 1; // in the index
    fs::write(&spoilt, bytes).unwrap();
    assert_eq!(complete(&source, &local).unwrap(), target);
    assert_eq!(
        [&zeroed, &spoilt].map(|path| fs::read(path).unwrap()),
        whole
    );
    assert_eq!(
        fs::metadata(&kept).unwrap().ino(),
        inode,
        "not copied again"
    );
}

#[test]
fn what_cannot_be_copied_is_named_and_leaves_no_complete_copy() {
    let root = tempfile::tempdir().unwrap();
    let (source, local) = (source(root.path()), root.path().join("local"));
    let manifest = Manifest::read(&source).unwrap();
    let record = records(&manifest).next().unwrap();
    let path = source.join(&record.file);
    let whole = fs::read(&path).unwrap();
    let message = |bytes: Option<&[u8]>| {
        match bytes {
            Some(bytes) => fs::write(&path, bytes).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let message = complete(&source, &local).unwrap_err().to_string();
        assert!(message.contains(&record.file), "{message}");
        let target = fs::read_dir(&local)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        assert!(!target.join(MANIFEST_FILE).exists());
        assert!(!target.join(&record.file).exists());
        message
    };
    message(Some(&whole[..whole.len() - 1]));
    let mut spoilt = whole.clone();
    spoilt[40] ^= 1; // in the header
    message(Some(&spoilt));
    assert!(message(None).contains("cannot copy"));
    // Another shard in its place.
    let other = records(&manifest).nth(1).unwrap();
    let other = fs::read(source.join(&other.file)).unwrap();
    assert!(message(Some(&other)).contains("the manifest says"));
    // A payload that is damaged in the source costs its sample, not the run: the loader replaces it.
    let mut damaged = whole.clone();
    let shard = {
        fs::write(&path, &whole).unwrap();
        Shard::open(&path).unwrap()
    };
    damaged[shard.entry(0).offset as usize] ^= 1;
    drop(shard);
    fs::write(&path, &damaged).unwrap();
    let target = complete(&source, &local).unwrap();
    assert_eq!(fs::read(target.join(&record.file)).unwrap(), damaged);
}

#[test]
fn a_copy_that_differs_from_its_source_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let source = source(root.path());
    let manifest = Manifest::read(&source).unwrap();
    let record = records(&manifest).next().unwrap();
    let (from, aside) = (source.join(&record.file), root.path().join("copy.part"));
    let mut bytes = fs::read(&from).unwrap();
    fs::write(&aside, &bytes).unwrap();
    verify(&from, &aside, record).unwrap();
    let at = Shard::open(&from).unwrap().entry(0).offset as usize;
    bytes[at + 3] ^= 0x40;
    fs::write(&aside, &bytes).unwrap();
    let message = verify(&from, &aside, record).unwrap_err().to_string();
    assert!(message.contains("differs from its source"), "{message}");
}

#[test]
fn one_process_copies_while_the_others_wait() {
    let root = tempfile::tempdir().unwrap();
    let (source, local) = (source(root.path()), root.path().join("local"));
    // Locks of files opened twice exclude each other within a process, too.
    let targets: Vec<PathBuf> = std::thread::scope(|scope| {
        let copies: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| complete(&source, &local).unwrap()))
            .collect();
        copies
            .into_iter()
            .map(|copy| copy.join().unwrap())
            .collect()
    });
    assert!(targets.iter().all(|target| *target == targets[0]));
    shardtool::Dataset::open(&targets[0]).unwrap();
}

#[test]
fn too_little_space_is_said_before_anything_is_copied() {
    let root = tempfile::tempdir().unwrap();
    let source = source(root.path());
    let mut manifest = Manifest::read(&source).unwrap();
    manifest.splits[0].shards[0].bytes = 1 << 60;
    let target = root.path().join("target");
    make_private(&target).unwrap();
    let missing: Vec<&ShardRecord> = records(&manifest).collect();
    let message = fill(&source, &target, &manifest, &missing)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("free, but the copy of") && message.contains("1048576.0 TiB"),
        "{message}"
    );
    assert!(shard_names(&target).is_empty());
}

#[test]
fn the_place_is_the_keys_or_the_jobs_and_never_guessed() {
    let plain = config(14, &[]).unwrap();
    let chosen = |variables: &[(&str, &str)]| {
        let variables = variables.to_vec();
        place(&plain, move |name| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    };
    assert_eq!(
        chosen(&[("SLURM_TMPDIR", "/job"), ("TMPDIR", "/t")]).unwrap(),
        Path::new("/job")
    );
    assert_eq!(
        chosen(&[
            ("SLURM_TMPDIR", ""),
            ("SLURM_JOB_ID", "no-such-job"),
            ("TMPDIR", "/t")
        ])
        .unwrap(),
        Path::new("/t")
    );
    let message = chosen(&[]).unwrap_err().to_string();
    assert!(
        message.starts_with("loader.local_dir: missing; meta.copy_data"),
        "{message}"
    );
    let set = config(14, &["loader.local_dir=/nvme"]).unwrap();
    let named = place(&set, |_| Some("/elsewhere".to_owned())).unwrap();
    assert_eq!(named, Path::new("/nvme"));
}

#[test]
fn only_copy_data_copies() {
    let root = tempfile::tempdir().unwrap();
    let (source, local) = (source(root.path()), root.path().join("local"));
    let keys = [
        format!("loader.shards={}", source.display()),
        format!("loader.local_dir={}", local.display()),
        "meta.copy_data=true".to_owned(),
    ];
    let sets: Vec<&str> = keys.iter().map(String::as_str).collect();
    let (without, with) = (config(14, &sets[..2]).unwrap(), config(14, &sets).unwrap());
    let shards = shards_dir(&without).unwrap();
    assert_eq!((shards.dir, shards.original), (source.clone(), None));
    assert!(!local.exists());
    let shards = shards_dir(&with).unwrap();
    assert!(shards.dir.starts_with(&local));
    assert_eq!(shards.original, Some(source));
    assert_eq!(with.sampling_hash(), without.sampling_hash());
}
