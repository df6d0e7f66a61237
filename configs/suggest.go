// SPDX-License-Identifier: Apache-2.0

package configs

import "strings"

// envName is the environment variable of key.
func envName(key string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(key, ".", "_"))
}

// suggest says which key was probably meant, or nothing when none is near.
func suggest(unknown string, fields []field) string {
	if best := nearest(unknown, fields, func(key string) string { return key }); best != "" {
		return "; did you mean " + best + "?"
	}
	return "; `trunkboard config` lists every key"
}

func suggestEnv(unknown string, fields []field) string {
	if best := nearest(unknown, fields, envName); best != "" {
		return "; did you mean " + envName(best) + "?"
	}
	return ""
}

// nearest is the key whose name (as the user would have written it) takes the fewest edits from unknown: at most a third of its
// letters. A key that ends in the same word is found too, so that min_port under a wrong section leads to turn.relay.min_port.
func nearest(unknown string, fields []field, name func(key string) string) string {
	best, least := "", len(unknown)/3+1
	for _, f := range fields {
		d := min(edits(unknown, name(f.key)), edits(unknown, strings.ReplaceAll(f.key, ".", "_")))
		if word := lastWord(f.key); word == lastWord(unknown) {
			d = min(d, 2) // as good as two slips of the finger
		}
		if d < least {
			best, least = f.key, d
		}
	}
	return best
}

func lastWord(key string) string { return key[strings.LastIndexByte(key, '.')+1:] }

// edits is the optimal string alignment distance: insertions, deletions, changes and swaps of neighbours.
func edits(a, b string) int {
	before, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		next := make([]int, len(b)+1)
		next[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			next[j] = min(row[j]+1, next[j-1]+1, row[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				next[j] = min(next[j], before[j-2]+1)
			}
		}
		before, row = row, next
	}
	return row[len(b)]
}
