// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// machine looks at the server's own machine.
func (e *examination) machine(context.Context) (out []Finding) {
	l := e.Local
	if l == nil {
		return nil
	}
	out = append(out, dataFolder(l.DataDir), clock(), descriptors(l.MaxAllocations))
	if f, ok := socketBuffers(); ok {
		out = append(out, f)
	}
	return append(out, relayAddresses(l))
}

func dataFolder(dir string) Finding {
	f := Finding{Check: "data folder", Verdict: Good}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		f.Verdict, f.Text = Skipped, dir+" is not there yet; the first start makes it"
		return f
	}
	probe, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		f.Verdict, f.Text = Broken, fmt.Sprintf("nothing can be written into %s: %v", dir, err)
		f.Next = "Give the user that runs trunkboard write permission on data_dir, or set data_dir to a folder that it owns."
		return f
	}
	_ = probe.Close()
	_ = os.Remove(probe.Name())
	free, err := freeSpace(dir)
	switch {
	case err != nil:
		f.Verdict, f.Text = Skipped, err.Error()
	case free < 1<<30:
		f.Verdict, f.Text = Warning, fmt.Sprintf("%d MiB are free in %s", free>>20, dir)
		f.Next = "Make room: when the disk is full, messages and uploads are refused."
	default:
		f.Text = fmt.Sprintf("writable, %d GiB free", free>>30)
	}
	return f
}

func relayAddresses(l *Local) Finding {
	f := Finding{Check: "relay addresses", Verdict: Good}
	if len(l.Relays) == 0 {
		f.Verdict, f.Text = Broken, "this machine has no address that relays could be opened on"
		f.Next = "Set turn.relay.addresses."
		return f
	}
	for _, r := range l.Relays {
		public := r.Public
		if !public.IsValid() {
			public = r.Local
		}
		switch {
		case l.Trial:
			f.Text = fmt.Sprintf("relays on %s, for trying out on this machine", public)
		case public.IsPrivate() || public.IsLoopback() || public.IsLinkLocalUnicast():
			f.Verdict, f.Text = Broken, fmt.Sprintf("callers are told to send to %s, an address that does not exist on the internet", public)
			f.Next = fmt.Sprintf("Find the public address of this machine (your provider's console shows it) and set turn.relay.addresses: [%s=PUBLIC].", r.Local)
			return f
		default:
			f.Text = fmt.Sprintf("relays on %s, ports %d to %d", public, l.MinPort, l.MaxPort)
			f.Next = fmt.Sprintf("The firewall must let UDP %d-%d in; that can only be seen from another network: run trunkboard doctor there.", l.MinPort, l.MaxPort)
		}
	}
	return f
}
