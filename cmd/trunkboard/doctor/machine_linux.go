// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func freeSpace(dir string) (bytes uint64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return s.Bavail * uint64(s.Bsize), nil
}

// clock asks the kernel whether something keeps its clock right.
func clock() Finding {
	f := Finding{Check: "clock", Verdict: Good, Text: "kept by a time service"}
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	switch {
	case err != nil:
		f.Verdict, f.Text = Skipped, err.Error()
	case state == 5 || t.Status&unix.STA_UNSYNC != 0: // TIME_ERROR
		f.Verdict, f.Text = Warning, "no time service keeps this machine's clock"
		f.Next = "Install chrony or enable systemd-timesyncd: relay credentials, tokens and certificates depend on the time. (In a container look on its host.)"
	}
	return f
}

func descriptors(allocations int) Finding {
	f := Finding{Check: "open files", Verdict: Good}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		f.Verdict, f.Text = Skipped, err.Error()
		return f
	}
	if allocations <= 0 {
		allocations = 8000
	}
	need := uint64(allocations) + 4096 // a socket for each allocation, connections of clients, files
	f.Text = fmt.Sprintf("up to %d", limit.Max)
	if limit.Max < need {
		f.Verdict, f.Text = Warning, fmt.Sprintf("at most %d files may be open; %d relays and their clients want %d", limit.Max, allocations, need)
		f.Next = "Raise it (LimitNOFILE=65536 in the systemd unit), or lower turn.max_allocations."
	}
	return f
}

// socketBuffers looks whether bursts of media fit into the kernel's queues.
func socketBuffers() (Finding, bool) {
	f := Finding{Check: "socket buffers", Verdict: Good}
	text, err := os.ReadFile("/proc/sys/net/core/rmem_max")
	if err != nil {
		return f, false // another namespace's setting: not ours to judge
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return f, false
	}
	f.Text = fmt.Sprintf("net.core.rmem_max is %d KiB", n>>10)
	if n < 1<<20 {
		f.Verdict = Warning
		f.Next = "Under bursts packets are lost before they are read. As root: sysctl -w net.core.rmem_max=4194304 net.core.wmem_max=4194304, and the same in /etc/sysctl.d."
	}
	return f, true
}
