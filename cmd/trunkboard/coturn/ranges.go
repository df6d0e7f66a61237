// SPDX-License-Identifier: Apache-2.0

package coturn

import (
	"fmt"
	"net/netip"
	"strings"
)

// maxPrefixes is how many prefixes a range may fall into; more is a mistake in the file.
const maxPrefixes = 256

// Prefixes reads what coturn takes as peers: an address, a prefix, or a range FIRST-LAST, as the fewest prefixes that cover it.
func Prefixes(text string) ([]netip.Prefix, error) {
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return []netip.Prefix{prefix.Masked()}, nil
	}
	first, last, ranged := strings.Cut(text, "-")
	from, err := netip.ParseAddr(strings.TrimSpace(first))
	to := from
	if err == nil && ranged {
		to, err = netip.ParseAddr(strings.TrimSpace(last))
	}
	if err != nil || from.Is4() != to.Is4() || to.Less(from) {
		return nil, fmt.Errorf("%q is no address, prefix or range", text)
	}
	var out []netip.Prefix
	for {
		// The widest prefix that begins here and ends no later than the range.
		prefix := netip.PrefixFrom(from, from.BitLen())
		for prefix.Bits() > 0 {
			wider := netip.PrefixFrom(from, prefix.Bits()-1)
			if wider.Masked().Addr() != from || to.Less(end(wider)) {
				break
			}
			prefix = wider
		}
		if out = append(out, prefix); len(out) > maxPrefixes {
			return nil, fmt.Errorf("%q falls into more than %d prefixes", text, maxPrefixes)
		}
		if from = end(prefix); from == to {
			return out, nil
		}
		from = from.Next()
	}
}

// end is the last address of a prefix.
func end(p netip.Prefix) netip.Addr {
	bytes := p.Addr().AsSlice()
	for i := p.Bits(); i < len(bytes)*8; i++ {
		bytes[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(bytes)
	return a
}
