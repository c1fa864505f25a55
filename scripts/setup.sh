#!/usr/bin/env bash
# Installs what this machine lacks to build, demonstrate, test or measure Lifeboat.
#
#   scripts/setup.sh build|demo|test|bench|generate ...
#
# The make targets call it; it is quick and silent when nothing is missing. On
# Debian and Ubuntu it uses apt-get (as root, or through sudo). Anywhere else it
# prints what to install and exits with status 1. It never touches anything but
# the package manager, Go's module cache and the user's cache of tools.
set -euo pipefail
cd "$(dirname "$0")/.."

# Each line: what proves that the tool is there (a command, or a file), and the
# name of its package on Debian/Ubuntu, Fedora, Arch, Alpine.
build_needs='
git                                   git            git              git          git
make                                  make           make             make         make
'
demo_needs='
qemu-system-x86_64                    qemu-system-x86 qemu-system-x86-core qemu-system-x86 qemu-system-x86_64
qemu-img                              qemu-utils     qemu-img         qemu-img     qemu-img
mke2fs                                e2fsprogs      e2fsprogs        e2fsprogs    e2fsprogs
grub-mkimage|grub2-mkimage            grub-common    grub2-tools      grub         grub
*/grub/i386-pc/boot.img               grub-pc-bin    grub2-pc-modules grub         grub-bios
dpkg-deb                              dpkg           dpkg             dpkg         dpkg
'
test_needs='
OVMF_CODE*.fd                         ovmf           edk2-ovmf        edk2-ovmf    ovmf
*/grub/x86_64-efi/modinfo.sh          grub-efi-amd64-bin grub2-efi-x64-modules grub grub-efi
nbdinfo                               libnbd-bin     libnbd           libnbd       libnbd
fio                                   fio            fio              fio          fio
zstd                                  zstd           zstd             zstd         zstd
losetup                               mount          util-linux       util-linux   losetup
ip                                    iproute2       iproute          iproute2     iproute2
mkfs.xfs                              xfsprogs       xfsprogs         xfsprogs     xfsprogs
mkfs.btrfs                            btrfs-progs    btrfs-progs      btrfs-progs  btrfs-progs
fuse2fs                               fuse2fs        e2fsprogs        fuse2fs      e2fsprogs-extra
dmsetup                               dmsetup        device-mapper    device-mapper device-mapper
lvm                                   lvm2           lvm2             lvm2         lvm2
sfdisk                                fdisk          util-linux       util-linux   sfdisk
gcc                                   gcc            gcc              gcc          gcc
initdb|/usr/lib/postgresql/15/bin/initdb|/usr/lib/postgresql/17/bin/initdb postgresql     postgresql-server postgresql  postgresql
mariadbd                              mariadb-server mariadb-server   mariadb      mariadb
/usr/include/stdlib.h                 libc6-dev      glibc-devel      glibc        musl-dev
/usr/lib/python3/dist-packages/boto3/__init__.py|/usr/lib/python3*/site-packages/boto3/__init__.py python3-boto3 python3-boto3 python-boto3 py3-boto3
npm                                   npm            nodejs-npm       npm          npm
libvirtd                              libvirt-daemon libvirt-daemon   libvirt      libvirt-daemon
qemu-ga                               qemu-guest-agent qemu-guest-agent qemu-guest-agent qemu-guest-agent
virsh                                 libvirt-clients libvirt-client  libvirt      libvirt-client
/usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so|/usr/lib/libvirt/connection-driver/libvirt_driver_qemu.so|/usr/lib64/libvirt/connection-driver/libvirt_driver_qemu.so libvirt-daemon-driver-qemu libvirt-daemon-driver-qemu libvirt libvirt-qemu
'
generate_needs='
clang                                 clang          clang            clang        clang
llvm-strip|llvm-strip-14              llvm           llvm             llvm         llvm
'
bench_needs='
fio                                   fio            fio              fio          fio
zstd                                  zstd           zstd             zstd         zstd
restic                                restic         restic           restic       restic
borg                                  borgbackup     borgbackup       borg         borgbackup
nbdkit                                nbdkit         nbdkit-server    nbdkit       nbdkit
mkfs.xfs                              xfsprogs       xfsprogs         xfsprogs     xfsprogs
dmsetup                               dmsetup        device-mapper    device-mapper device-mapper
lvm                                   lvm2           lvm2             lvm2         lvm2
'
# Not every release has these; what needs them says so when they are missing.
test_likes='
/usr/bin/aws                          awscli         awscli2          aws-cli-v2   aws-cli
'

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

present() { # PROBE: any of the alternatives exists
  local probe dir hits
  for probe in ${1//|/ }; do
    case $probe in
      OVMF_*)
        for dir in /usr/share/OVMF /usr/share/edk2/ovmf /usr/share/edk2/x64 /usr/share/edk2-ovmf/x64; do
          hits=$(compgen -G "$dir/$probe" || true)
          [ -n "$hits" ] && return 0
        done ;;
      \*/*) [ -e "/usr/lib/${probe#\*/}" ] && return 0 ;;
      /*) [ -e "$probe" ] && return 0 ;;
      *) command -v "$probe" >/dev/null 2>&1 && return 0
         [ -x "/usr/sbin/$probe" ] || [ -x "/sbin/$probe" ] && return 0 ;;
    esac
  done
  return 1
}

family() {
  [ "$(uname -s)" = Linux ] || { uname -s; return; }
  local id='' like=''
  if [ -r /etc/os-release ]; then
    id=$(. /etc/os-release; echo "${ID:-}")
    like=$(. /etc/os-release; echo "${ID_LIKE:-}")
  fi
  case " $id $like " in
    *\ debian\ *|*\ ubuntu\ *) echo debian ;;
    *\ fedora\ *|*\ rhel\ *) echo fedora ;;
    *\ arch\ *) echo arch ;;
    *\ alpine\ *) echo alpine ;;
    *) echo "${id:-unknown}" ;;
  esac
}

missing() { # NEEDS COLUMN: the packages whose probe fails
  local probe debian fedora arch alpine
  while read -r probe debian fedora arch alpine; do
    [ -n "$probe" ] || continue
    present "$probe" || eval "echo \"\$$2\""
  done <<<"$1" | sort -u
}

# How to become root: nothing, sudo, or sudo that must not ask where nobody can
# answer.
become_root=()
need_root() { # PACKAGES...
  [ "$(id -u)" != 0 ] || return 0
  command -v sudo >/dev/null 2>&1 ||
    die "needs root to install packages and finds no sudo; as root, run:  apt-get install $*"
  become_root=(sudo)
  [ -t 0 ] || become_root=(sudo -n)
  "${become_root[@]}" true 2>/dev/null || [ -t 0 ] ||
    die "needs root to install packages, and sudo wants a password that nobody can enter here; run:  sudo apt-get install $*"
}

# Another package manager may be at work (unattended upgrades on a new machine):
# wait for its locks instead of failing, up to five minutes.
apt() {
  local log deadline=$((SECONDS + 300))
  log=$(mktemp)
  while :; do
    if "${become_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -y -q \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 "$@" >"$log" 2>&1 </dev/null; then
      rm -f "$log"; return 0
    fi
    if grep -qE 'Could not get lock|Unable to (acquire|lock)' "$log" && [ $SECONDS -lt $deadline ]; then
      sleep 3; continue
    fi
    tail -n 15 "$log" >&2
    rm -f "$log"; return 1
  done
}

candidate() { LC_ALL=C apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: //p' | grep -v '(none)'; }

# Package lists are fetched once per run, and only when they are found wanting.
refreshed=
refresh_lists() {
  [ -z "$refreshed" ] || return 0
  refreshed=1
  say "fetching package lists"
  apt update || say "apt-get update failed; going on with the lists there are"
}

install_debian() { # PACKAGES...
  local want="$*" package
  need_root "$@"
  for package in "$@"; do
    [ -n "$(candidate "$package")" ] || { refresh_lists; break; }
  done
  for package in "$@"; do
    [ -n "$(candidate "$package")" ] ||
      die "no package $package is offered by the sources of this machine; add Debian's or Ubuntu's main (and universe) section to /etc/apt/sources.list, run apt-get update, then this again"
  done
  say "installing $want"
  apt install --no-install-recommends "$@" && return 0
  refresh_lists # stale lists name files that are gone from the mirror
  apt install --no-install-recommends "$@" ||
    die "apt-get could not install them (its last words are above); once mended, run this again"
}

# The Go that go.mod asks for; an older one is good enough to fetch it.
setup_go() {
  scripts/go version >/dev/null 2>&1 && return 0
  if ! command -v go >/dev/null 2>&1 && ! compgen -G '/usr/lib/go-*/bin/go' >/dev/null; then
    if [ "$(family)" = debian ]; then install_debian golang-go ca-certificates
    else die "Go $(scripts/go --wanted) or newer is missing: install it from https://go.dev/dl/ (or your distribution's go package) and run this again"; fi
  fi
  scripts/go --fetch || die "Go $(scripts/go --wanted) is needed and could not be fetched: install it from https://go.dev/dl/, put its bin directory on PATH and run this again"
  scripts/go version >/dev/null || die "Go $(scripts/go --wanted) was fetched but does not run (see above)"
}

# The S3 server that tests of the vault run against: a program of its own, built by
# Go at this version into the user's cache, and no dependency of Lifeboat.
s3_server=github.com/versity/versitygw/cmd/versitygw@v1.8.0
setup_s3_server() {
  local dir="${XDG_CACHE_HOME:-$HOME/.cache}/lifeboat/tools/versitygw-${s3_server##*@}"
  [ ! -x "$dir/versitygw" ] || return 0
  say "building versitygw, the S3 server of the tests (once, a minute or two)"
  mkdir -p "$dir"
  # Into place at once, so that a build cut short is not taken for a program.
  local build; build=$(mktemp -d "$dir/build-XXXXXX")
  local log=$build/log
  if GOBIN=$build GOFLAGS= CGO_ENABLED=0 scripts/go install "$s3_server" >"$log" 2>&1 </dev/null; then
    mv "$build/versitygw" "$dir/versitygw"
    rm -rf "$build"
    return 0
  fi
  tail -n 5 "$log" >&2
  rm -rf "$build"
  say "note: versitygw could not be built (its last words are above); tests of the vault on S3 are skipped"
}

# The AWS SDK for JavaScript that the end-to-end suite drives: the versions of the
# lock file, which has the digest of every package.
setup_javascript() {
  local dir
  dir="${XDG_CACHE_HOME:-$HOME/.cache}/lifeboat/tools/clients-$(sha256sum test/e2e/clients/package-lock.json | cut -c1-16)"
  [ ! -d "$dir" ] || return 0
  say "installing the AWS SDK for JavaScript, which tests drive"
  mkdir -p "${dir%/*}"
  # Into place at once, so that an install cut short is not taken for one.
  local build; build=$(mktemp -d "$dir-XXXXXX")
  cp test/e2e/clients/package.json test/e2e/clients/package-lock.json "$build"
  if npm ci --prefix "$build" --ignore-scripts --no-audit --no-fund --loglevel=error >"$build/log" 2>&1 </dev/null; then
    mv "$build" "$dir"
    return 0
  fi
  tail -n 5 "$build/log" >&2
  rm -rf "$build"
  die "npm could not install the AWS SDK for JavaScript (its last words are above); once mended, run this again"
}

[ $# -gt 0 ] || die "usage: scripts/setup.sh build|demo|test|bench|generate ..."
needs='' likes=''
for group in "$@"; do
  case $group in
    build) needs+=$build_needs ;;
    demo) needs+=$build_needs$demo_needs ;;
    test) needs+=$build_needs$demo_needs$test_needs likes+=$test_likes ;;
    generate) needs+=$build_needs$generate_needs ;;
    bench) needs+=$build_needs$demo_needs$bench_needs ;;
    *) die "no group $group; there are: build demo test bench generate" ;;
  esac
done

# Two make runs at once wait for each other here.
if command -v flock >/dev/null 2>&1; then exec 9<scripts/setup.sh; flock 9; fi

family=$(family)
case $family in debian|fedora|arch|alpine) column=$family ;; *) column=debian ;; esac
want=$(missing "$needs" $column | tr '\n' ' ')
want=${want% }
if [ -n "$want" ]; then
  case $family in
    debian) install_debian $want ;; # word splitting intended: a list of packages
    fedora) die "please run:  sudo dnf install $want   and then this again" ;;
    arch) die "please run:  sudo pacman -S --needed $want   and then this again" ;;
    alpine) die "please run:  sudo apk add $want   and then this again" ;;
    Darwin) die "Lifeboat builds on macOS with Go alone (CGO_ENABLED=0 go build ./cmd/lifeboat); the demo and the tests run real Linux machines and need Linux: use a Debian or Ubuntu machine. Missing here, by their Debian names: $want" ;;
    *) die "this system ($family) is not known here; install what Debian calls:  $want   and then run this again" ;;
  esac
  still=$(missing "$needs" $column | tr '\n' ' ')
  [ -z "${still% }" ] || die "still missing after the install: $still(looked for commands on PATH and files under /usr)"
fi

# The demo's machine is made of packages that apt-get downloads by itself; it
# can do so without root, but only when there are lists of them.
case $needs in *"$demo_needs"*)
  if [ "$family" = debian ] && ! compgen -G '/var/lib/apt/lists/*Packages*' >/dev/null; then
    need_root busybox-static
    refresh_lists
  fi ;;
esac

liked=$(missing "$likes" $column | tr '\n' ' ')
for package in $liked; do
  if [ "$family" = debian ]; then
    if [ -z "$(candidate "$package")" ]; then
      need_root "$package"
      refresh_lists
    fi
    if [ -n "$(candidate "$package")" ]; then install_debian "$package"; continue; fi
  fi
  say "note: $package is not offered here; tests that drive the AWS CLI need it as /usr/bin/aws (see https://docs.aws.amazon.com/cli/)"
done

setup_go
case " $* " in *" test "*) setup_s3_server; setup_javascript ;; esac
