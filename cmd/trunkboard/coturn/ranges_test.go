// SPDX-License-Identifier: Apache-2.0

package coturn

import (
	"math/big"
	"net/netip"
	"testing"
)

// FuzzRangesCoverWhatTheySay compares the prefixes that a range becomes with the range as numbers: coturn once compared the bytes of addresses one
// by one, and let through what it was told to deny.
func FuzzRangesCoverWhatTheySay(f *testing.F) {
	four := func(a, b, c, d byte) []byte { return []byte{a, b, c, d} }
	f.Add(four(10, 0, 0, 0), four(10, 255, 255, 255), four(10, 255, 0, 0))
	f.Add(four(10, 1, 200, 7), four(10, 2, 3, 4), four(10, 1, 0, 0))
	f.Add(four(0, 0, 0, 0), four(255, 255, 255, 255), four(1, 2, 3, 4))
	six := func(s string) []byte { return netip.MustParseAddr(s).AsSlice() }
	f.Add(six("2001:db8::ff00"), six("2001:db8::1:2"), six("2001:db8::1:0"))
	f.Add(six("::"), six("ffff::"), six("::1"))
	number := func(a netip.Addr) *big.Int { return new(big.Int).SetBytes(a.AsSlice()) }
	f.Fuzz(func(t *testing.T, first, last, other []byte) {
		from, ok1 := netip.AddrFromSlice(first)
		to, ok2 := netip.AddrFromSlice(last)
		x, ok3 := netip.AddrFromSlice(other)
		if !ok1 || !ok2 || !ok3 || from.Is4() != to.Is4() || from.Is4() != x.Is4() {
			return
		}
		prefixes, err := Prefixes(from.String() + "-" + to.String())
		if sane := number(from).Cmp(number(to)) <= 0; (err == nil) != sane && sane && len(prefixes) == 0 && from.Is4() {
			t.Fatalf("%v-%v: %v", from, to, err)
		}
		if err != nil {
			return
		}
		covered := func(a netip.Addr) bool {
			for _, p := range prefixes {
				if p.Contains(a) {
					return true
				}
			}
			return false
		}
		for _, a := range []netip.Addr{x, from, to, from.Prev(), to.Next()} {
			if !a.IsValid() {
				continue // beyond the first or the last address that there is
			}
			want := number(a).Cmp(number(from)) >= 0 && number(a).Cmp(number(to)) <= 0
			if covered(a) != want {
				t.Errorf("%v-%v covers %v: %v, want %v (%v)", from, to, a, covered(a), want, prefixes)
			}
		}
	})
}
