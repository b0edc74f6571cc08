package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
)

// check ends the program when the two differ.
func check(what string, found, expected any) {
	if one, ok := found.([]byte); ok {
		other := expected.([]byte)
		if !bytes.Equal(one, other) {
			fail("%s: %d bytes came, not the %d expected", what, len(one), len(other))
		}
		return
	}
	if !reflect.DeepEqual(found, expected) {
		fail("%s: %v came, not the %v expected", what, found, expected)
	}
}

type label struct {
	path   string
	status int
}

var sums = []string{"calls", "request_messages", "response_messages", "request_bytes", "response_bytes"}

// Tally is calls by path and status.
type Tally struct {
	lines     map[label]map[string]any
	uncertain int
}

func newTally() *Tally {
	return &Tally{lines: map[label]map[string]any{}}
}

func (tally *Tally) line(path string, status int) map[string]any {
	found, ok := tally.lines[label{path, status}]
	if !ok {
		found = map[string]any{"method": path, "grpc_status": status}
		for _, name := range sums {
			found[name] = 0
		}
		tally.lines[label{path, status}] = found
	}
	return found
}

// add counts a call. Messages are given by their lengths; nil: this call's are not known.
func (tally *Tally) add(path string, status int, requests, responses []int) {
	line := tally.line(path, status)
	line["calls"] = line["calls"].(int) + 1
	for kind, sizes := range map[string][]int{"request": requests, "response": responses} {
		bytes := 0
		for _, size := range sizes {
			bytes += 5 + size
		}
		for name, more := range map[string]int{kind + "_messages": len(sizes), kind + "_bytes": bytes} {
			if sizes == nil || line[name] == nil {
				line[name] = nil
			} else {
				line[name] = line[name].(int) + more
			}
		}
	}
}

// addUncertain counts calls of which it is not known whether they were sent; there must be no certain one like them.
func (tally *Tally) addUncertain(path string, status int, count int) {
	line := tally.line(path, status)
	for _, name := range sums {
		line[name] = nil
	}
	tally.uncertain += count
}

// show prints what a client prints.
func (tally *Tally) show() {
	counts := []map[string]any{}
	for _, line := range tally.lines {
		counts = append(counts, line)
	}
	printed, err := json.Marshal(map[string]any{"counts": counts, "uncertain": tally.uncertain})
	must(err)
	fmt.Println(string(printed))
}

func repeated(count, size int) []int {
	found := make([]int, count)
	for index := range found {
		found[index] = size
	}
	return found
}
