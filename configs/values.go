// SPDX-License-Identifier: Apache-2.0

package configs

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes, written 65536, 64KiB, 50MiB or 2GiB.
type Size int64

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	t, unit := strings.TrimSpace(string(text)), int64(1)
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(t, u.suffix); ok {
			t, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	n, err := strconv.ParseInt(t, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return fmt.Errorf("want a size such as 65536, 64KiB, 50MiB or 2GiB, not %q", text)
	}
	*s = Size(n * unit)
	return nil
}

// MarshalText writes the size in its largest whole unit.
func (s Size) MarshalText() ([]byte, error) {
	for _, u := range sizeUnits {
		if s != 0 && u.bytes > 1 && int64(s)%u.bytes == 0 {
			return fmt.Appendf(nil, "%d%s", int64(s)/u.bytes, u.suffix), nil
		}
	}
	return strconv.AppendInt(nil, int64(s), 10), nil
}

// RelayAddress is an address of this machine, and the address that stands for it beyond a 1:1 NAT, written LOCAL or LOCAL=EXTERNAL.
type RelayAddress struct {
	Local    netip.Addr
	External netip.Addr // not valid: the same as Local
}

// UnmarshalText reads a relay address.
func (r *RelayAddress) UnmarshalText(text []byte) error {
	local, external, nat := strings.Cut(string(text), "=")
	out := RelayAddress{}
	var err error
	if out.Local, err = netip.ParseAddr(local); err == nil && nat {
		out.External, err = netip.ParseAddr(external)
	}
	if err != nil {
		return fmt.Errorf("want an address of this machine, or LOCAL=EXTERNAL such as 10.0.0.5=203.0.113.7, not %q", text)
	}
	*r = out
	return nil
}

// MarshalText writes the address as UnmarshalText reads it.
func (r RelayAddress) MarshalText() ([]byte, error) {
	if !r.External.IsValid() {
		return r.Local.MarshalText()
	}
	return []byte(r.Local.String() + "=" + r.External.String()), nil
}

// Rate is a token bucket: Events per Every flow in, and at most Burst are held. The zero value, written "off", is no limit.
type Rate struct {
	Events int
	Every  time.Duration // one second, minute or hour
	Burst  int
}

var rateUnits = []struct {
	name  string
	every time.Duration
}{{"s", time.Second}, {"min", time.Minute}, {"h", time.Hour}}

// Off reports whether there is no limit.
func (r Rate) Off() bool { return r.Events == 0 }

// PerSecond is the flow in events per second; 0 when off.
func (r Rate) PerSecond() float64 {
	if r.Off() {
		return 0
	}
	return float64(r.Events) / r.Every.Seconds()
}

// UnmarshalText reads "10/s burst 50", "10/min" (burst equal to the events) or "off".
func (r *Rate) UnmarshalText(text []byte) error {
	bad := fmt.Errorf(`want a rate such as "10/s burst 50", "20/min" or "off", not %q`, text)
	words := strings.Fields(string(text))
	if len(words) == 1 && words[0] == "off" {
		*r = Rate{}
		return nil
	}
	if len(words) != 1 && !(len(words) == 3 && words[1] == "burst") {
		return bad
	}
	number, unit, _ := strings.Cut(words[0], "/")
	out := Rate{}
	for _, u := range rateUnits {
		if u.name == unit {
			out.Every = u.every
		}
	}
	var err error
	if out.Events, err = strconv.Atoi(number); err != nil || out.Events < 1 || out.Every == 0 {
		return bad
	}
	out.Burst = out.Events
	if len(words) == 3 {
		if out.Burst, err = strconv.Atoi(words[2]); err != nil || out.Burst < 1 {
			return bad
		}
	}
	*r = out
	return nil
}

// MarshalText writes the rate as UnmarshalText reads it.
func (r Rate) MarshalText() ([]byte, error) {
	if r.Off() {
		return []byte("off"), nil
	}
	for _, u := range rateUnits {
		if u.every == r.Every {
			return fmt.Appendf(nil, "%d/%s burst %d", r.Events, u.name, r.Burst), nil
		}
	}
	return nil, fmt.Errorf("a rate is per second, minute or hour, not per %s", r.Every)
}
