// SPDX-License-Identifier: Apache-2.0

package event

import "strconv"

// The functions here read JSON that is canonical already; on anything else they find nothing rather than panic.

// members calls f for each member of a canonical object, key without quotes and still escaped, until f says false. ok is false when
// obj is not an object.
func members(obj []byte, f func(key, value []byte) bool) (ok bool) {
	if len(obj) < 2 || obj[0] != '{' {
		return false
	}
	for i := 1; i < len(obj) && obj[i] != '}'; {
		end := skip(obj, i)
		if obj[i] != '"' || end+1 >= len(obj) || obj[end] != ':' {
			return false
		}
		next := skip(obj, end+1)
		if next <= end+1 || next >= len(obj) {
			return false
		}
		if !f(obj[i+1:end-1], obj[end+1:next]) {
			return true
		}
		if i = next; obj[i] == ',' {
			i++
		}
	}
	return true
}

// elements calls f for each element of a canonical array. ok is false when arr is not an array.
func elements(arr []byte, f func(value []byte) bool) (ok bool) {
	if len(arr) < 2 || arr[0] != '[' {
		return false
	}
	for i := 1; i < len(arr) && arr[i] != ']'; {
		next := skip(arr, i)
		if next <= i || next >= len(arr) {
			return false
		}
		if !f(arr[i:next]) {
			return true
		}
		if i = next; arr[i] == ',' {
			i++
		}
	}
	return true
}

// skip gives the index right after the value that starts at i.
func skip(b []byte, i int) int {
	depth := 0
	for i < len(b) {
		switch b[i] {
		case '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			i++
			if depth == 0 {
				return min(i, len(b))
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth <= 0 {
				if depth < 0 {
					return i
				}
				return i + 1
			}
		case ',', ':':
			if depth == 0 {
				return i
			}
		}
		i++
	}
	return i
}

// field is the value at key of a canonical object, nil when there is none.
func field(obj []byte, key string) (value []byte) {
	members(obj, func(k, v []byte) bool {
		if string(k) == key {
			value = v
			return false
		}
		return true
	})
	return value
}

// text is the value of a canonical JSON string.
func text(v []byte) (s string, ok bool) {
	if len(v) < 2 || v[0] != '"' {
		return "", false
	}
	return unescape(v[1 : len(v)-1]), true
}

// textField is the string at key, "" when there is none.
func textField(obj []byte, key string) string {
	s, _ := text(field(obj, key))
	return s
}

// integer is the value of a JSON integer that canonical JSON can hold.
func integer(v []byte) (n int64, ok bool) {
	n, err := strconv.ParseInt(string(v), 10, 64)
	return n, err == nil && n >= -MaxDepthVal && n <= MaxDepthVal
}
