package local

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"github.com/plugmicro/micro/registry"
)

const (
	maxFile = 8 << 20     // bytes; what passes registry.Validate is smaller, escapes included
	abandon = time.Minute // age of an unlocked temporary file that nobody will finish
)

// record is one file: one node, and who wrote it when.
type record struct {
	*registry.Service
	TTL        time.Duration `json:"ttl,omitempty"` // counted from the time of last modification
	Registered int64         `json:"registered"`    // nanoseconds since 1970; of two files about one node the later one counts
	PID        int           `json:"pid"`           // for people

	file string
}

// nodeKey names a node safely, whatever characters it is made of.
type nodeKey struct{ service, node string }

func newKey(name, id string) nodeKey { return nodeKey{hash(name), hash(id)} }

func keyOf(s *registry.Service) nodeKey { return newKey(s.Name, s.Nodes[0].ID) }

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:16])
}

// Files are named after the service, the node, and a random number: a name is never used twice, so what is dead stays
// dead, and can be removed without a look at what others do.
var suffixes = []string{".json", ".json.new"}

func isFileName(s string) bool {
	const letters = 32 + 1 + 32 + 1 + 16
	if len(s) < letters || s[32] != '-' || s[65] != '-' || !slices.Contains(suffixes, s[letters:]) {
		return false
	}
	return strings.Trim(s[:letters], "0123456789abcdef-") == ""
}

func (k nodeKey) prefix() string { return k.service + "-" + k.node + "-" }

func (k nodeKey) newFile() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("%s%x.json", k.prefix(), b)
}

// lockedFile is one that this process holds.
type lockedFile struct {
	*record
	lock *flock.Flock
}

func (f *lockedFile) unlock() { _ = f.lock.Close() } // what is closed is unlocked

// dir reads and writes the files. Its methods are safe for concurrent use.
type dir struct {
	path    string
	guarded []string // the directories that must be this user's own, outermost first
	log     *slog.Logger

	mu     sync.Mutex
	cache  map[string]*record // by file; what a file says never changes
	warned map[string]bool    // by file
}

func newDir(path string, log *slog.Logger) (*dir, error) {
	d := &dir{path: path, guarded: []string{path}, log: log, cache: make(map[string]*record), warned: make(map[string]bool)}
	if path == "" {
		d.guarded = defaultDirs()
		d.path = d.guarded[len(d.guarded)-1]
	}
	_, err := d.ensure()
	return d, err
}

// defaultDirs returns the default directory and the one above it, which nobody else may be able to replace either.
func defaultDirs() []string {
	base := filepath.Join(os.TempDir(), "micro-"+strconv.Itoa(os.Geteuid()))
	if run := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(run) {
		if _, err := check(run); err == nil { // not after su or sudo
			base = filepath.Join(run, "micro")
		}
	}
	return []string{base, filepath.Join(base, "registry")}
}

// ensure makes the directory if it is not there, and says why if it cannot be trusted.
func (d *dir) ensure() (info fs.FileInfo, err error) {
	for _, path := range d.guarded {
		info, err = check(path)
		if errors.Is(err, fs.ErrNotExist) {
			if err := create(path); err != nil {
				return nil, fmt.Errorf("registry directory: %w; choose another with --registry-dir", err)
			}
			info, err = check(path)
		}
		if err != nil {
			return nil, err
		}
	}
	return info, nil
}

func create(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// check says whether only this user can enter path.
func check(path string) (fs.FileInfo, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, fmt.Errorf("registry directory: %w; choose another with --registry-dir", err)
	}
	return info, checkInfo(path, info)
}

func checkInfo(path string, info fs.FileInfo) error {
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("registry directory %s is a symbolic link, which is not followed: remove it, or choose another directory with --registry-dir", path)
	case !info.IsDir():
		return fmt.Errorf("registry directory %s is no directory: remove it, or choose another with --registry-dir", path)
	}
	if err := checkOwner(path, info); err != nil {
		return err
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("registry directory %s is open to other users (mode %04o): run chmod 700 %s, or choose another directory with --registry-dir", path, perm, path)
	}
	return nil
}

// write makes a new file, which is locked before others can see it.
func (d *dir) write(rec *record) (*lockedFile, error) {
	stored := *rec
	stored.Service = rec.Service.Clone()
	stored.file = keyOf(rec.Service).newFile()
	stored.PID = os.Getpid()
	data, err := json.Marshal(&stored)
	if err != nil {
		return nil, err
	}
	f, err := d.place(stored.file, data)
	if errors.Is(err, fs.ErrNotExist) { // the directory was deleted in between
		if _, err = d.ensure(); err == nil {
			f, err = d.place(stored.file, data)
		}
	}
	if err != nil {
		return nil, err
	}
	d.remember(&stored)
	return &lockedFile{record: &stored, lock: f}, nil
}

func (d *dir) place(file string, data []byte) (_ *flock.Flock, err error) {
	path := filepath.Join(d.path, file)
	lock := flock.New(path+".new", flock.SetFlag(os.O_CREATE|os.O_EXCL|os.O_RDWR), flock.SetPermissions(0o600))
	defer func() {
		if err != nil {
			_ = os.Remove(path + ".new")
			_ = lock.Close()
		}
	}()
	if ok, err := lock.TryLock(); err != nil {
		return nil, err
	} else if !ok {
		return nil, fmt.Errorf("%s is locked by somebody else", path+".new")
	}
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return nil, err
	}
	return lock, os.Rename(path+".new", path)
}

// touch starts the TTL anew.
func (d *dir) touch(file string) error {
	now := time.Now()
	return os.Chtimes(filepath.Join(d.path, file), now, now)
}

// remove is for files that are not needed any more; if one cannot be removed now, whoever finds it unlocked does it.
func (d *dir) remove(file string) { _ = os.Remove(filepath.Join(d.path, file)) }

// filesOf returns what the files among names say about a node, the one that counts last: whoever removes them does it in
// this order, so that nobody takes an older one for the truth.
func (d *dir) filesOf(key nodeKey, names []string) []*record {
	var files []*record
	prefix := key.prefix()
	for _, name := range names {
		if strings.HasPrefix(name, prefix) && strings.HasSuffix(name, ".json") {
			if rec, _ := d.read(name); rec != nil { // scan warns
				files = append(files, rec)
			}
		}
	}
	slices.SortFunc(files, (*record).compare)
	return files
}

func (rec *record) compare(o *record) int {
	return cmp.Or(cmp.Compare(rec.Registered, o.Registered), cmp.Compare(rec.file, o.file))
}

func (rec *record) says(o *record) bool { return rec.TTL == o.TTL && rec.Service.Equal(o.Service) }

// node is the part of the name that all files about the node have.
func (rec *record) node() string { return rec.file[:2*33] }

// list returns the names of the files that can be ours, and warns of all else. It makes the directory if necessary.
func (d *dir) list() ([]string, fs.FileInfo, error) {
	info, err := d.ensure()
	if err != nil {
		return nil, nil, err
	}
	entries, err := readUnsorted(d.path)
	if errors.Is(err, fs.ErrNotExist) { // deleted again already
		return nil, info, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("registry directory: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && isFileName(e.Name()) {
			names = append(names, e.Name())
		} else {
			d.warn(e.Name(), errors.New("it is no registration"))
		}
	}
	d.forget(entries)
	return names, info, nil
}

func readUnsorted(path string) ([]fs.DirEntry, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.ReadDir(-1)
}

// forget drops what is known of files that are gone, when that is more than there are files.
func (d *dir) forget(entries []fs.DirEntry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.cache) <= len(entries) && len(d.warned) <= len(entries) {
		return
	}
	there := make(map[string]bool, len(entries))
	for _, e := range entries {
		there[e.Name()] = true
	}
	maps.DeleteFunc(d.cache, func(name string, _ *record) bool { return !there[name] })
	maps.DeleteFunc(d.warned, func(name string, _ bool) bool { return !there[name] })
}

func (d *dir) warn(file string, why error) {
	d.mu.Lock()
	told := d.warned[file]
	d.warned[file] = true
	d.mu.Unlock()
	if !told {
		d.log.Warn("ignoring a file in the registry directory", "file", filepath.Join(d.path, file), "error", why)
	}
}

func (d *dir) remember(rec *record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cache[rec.file] = rec
}

// read returns what a file says, and an error if that makes no sense; neither if the file is gone.
func (d *dir) read(file string) (*record, error) {
	d.mu.Lock()
	rec := d.cache[file]
	d.mu.Unlock()
	if rec != nil {
		return rec, nil
	}
	rec, err := parse(filepath.Join(d.path, file))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d.remember(rec)
	return rec, nil
}

func parse(path string) (*record, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fmt.Errorf("it is not a regular file of at most %d bytes", maxFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	rec := &record{file: filepath.Base(path)}
	if err := json.Unmarshal(data, rec); err != nil {
		return nil, err
	}
	if err := registry.Validate(rec.Service); err != nil {
		return nil, err
	}
	if len(rec.Nodes) != 1 || !strings.HasPrefix(rec.file, keyOf(rec.Service).prefix()) {
		return nil, errors.New("its name does not fit what it says")
	}
	return rec, nil
}

// snapshot is what the directory says at one time.
type snapshot struct {
	services []*registry.Service // one node each, in the order of their registration, shared with the cache
	expires  time.Time           // when the next TTL passes; zero: never
	dir      fs.FileInfo
}

// scan returns the living nodes of the service with that hash, or of all, and removes what dead processes left.
//
// It reads everything first and looks for life afterwards, of several files about a node in the opposite order of their
// removal: if the one that counts is gone, an older one that was listed with it is gone, too.
func (d *dir) scan(service string) (*snapshot, error) {
	names, info, err := d.list()
	if err != nil {
		return nil, err
	}
	now := time.Now()
	nodes := make(map[string][]*record)
	for _, name := range names {
		switch {
		case !strings.HasPrefix(name, service):
		case strings.HasSuffix(name, ".new"):
			d.sweep(name, now)
		default:
			if rec, err := d.read(name); err != nil {
				d.warn(name, err)
			} else if rec != nil {
				nodes[rec.node()] = append(nodes[rec.node()], rec)
			}
		}
	}
	var living []*record
	for _, files := range nodes {
		slices.SortFunc(files, func(a, b *record) int { return b.compare(a) })
		if i := slices.IndexFunc(files, d.alive); i >= 0 {
			living = append(living, files[i])
		}
	}
	slices.SortFunc(living, (*record).compare)
	return d.snapshot(living, info, now), nil
}

func (d *dir) snapshot(living []*record, info fs.FileInfo, now time.Time) *snapshot {
	s := &snapshot{dir: info}
	for _, rec := range living {
		expires := d.expiry(rec)
		if passed(expires, now) {
			continue
		}
		s.services = append(s.services, rec.Service)
		if !expires.IsZero() && (s.expires.IsZero() || expires.Before(s.expires)) {
			s.expires = expires
		}
	}
	return s
}

// expiry is zero if there is none.
func (d *dir) expiry(rec *record) time.Time {
	if rec.TTL <= 0 {
		return time.Time{}
	}
	info, err := os.Lstat(filepath.Join(d.path, rec.file))
	if err != nil {
		return time.Unix(0, 1) // gone
	}
	return info.ModTime().Add(rec.TTL)
}

func passed(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

// alive tries the lock, and removes the file of a dead process, which is surely ours: it made sense.
func (d *dir) alive(rec *record) bool {
	locked, err := isLocked(filepath.Join(d.path, rec.file))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		d.warn(rec.file, err)
	case !locked:
		d.remove(rec.file)
	}
	return err == nil && locked
}

// isLocked tries the lock in shared mode, so that two who try do not take each other for the owner.
func isLocked(path string) (bool, error) {
	lock := flock.New(path, flock.SetFlag(os.O_RDONLY))
	got, err := lock.TryRLock()
	_ = lock.Close()
	return !got, err
}

// sweep removes the temporary file of a process that died while it wrote it.
func (d *dir) sweep(file string, now time.Time) {
	path := filepath.Join(d.path, file)
	info, err := os.Lstat(path)
	if err != nil || now.Sub(info.ModTime()) < abandon {
		return
	}
	if locked, err := isLocked(path); err == nil && !locked {
		d.remove(file)
	}
}
