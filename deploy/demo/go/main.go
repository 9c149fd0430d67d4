// A small program with two hot functions of known cost, profiled by the Pyroscope SDK for Go.
//
// Usage: demo URL SECONDS [SERVICE]
package main

import (
	"context"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/grafana/pyroscope-go"
)

var sink int

var kept [][]byte

//go:noinline
func parseOrders(units int) {
	for i := range units * 100_000 {
		sink += i % 7
	}
}

//go:noinline
func renderReport(units int) {
	for i := range units * 100_000 {
		sink += i % 7
	}
}

//go:noinline
func remember() {
	kept = append(kept, make([]byte, 64<<10))
	if len(kept) > 256 {
		kept = nil
	}
}

func main() {
	url, service := os.Args[1], "demo-go"
	seconds, err := strconv.ParseFloat(os.Args[2], 64)
	if err != nil {
		log.Fatal(err)
	}
	if len(os.Args) > 3 {
		service = os.Args[3]
	}
	profiler, err := pyroscope.Start(pyroscope.Config{
		ApplicationName: service,
		ServerAddress:   url,
		UploadRate:      5 * time.Second,
		Tags:            map[string]string{"region": "eu-demo"},
		ProfileTypes: []pyroscope.ProfileType{
			pyroscope.ProfileCPU,
			pyroscope.ProfileAllocObjects,
			pyroscope.ProfileAllocSpace,
			pyroscope.ProfileInuseObjects,
			pyroscope.ProfileInuseSpace,
			pyroscope.ProfileGoroutines,
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	end := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	for time.Now().Before(end) {
		pyroscope.TagWrapper(context.Background(), pyroscope.Labels("endpoint", "/orders"), func(context.Context) {
			parseOrders(30)
		})
		pyroscope.TagWrapper(context.Background(), pyroscope.Labels("endpoint", "/report"), func(context.Context) {
			renderReport(10)
		})
		remember()
	}
	if err := profiler.Stop(); err != nil {
		log.Fatal(err)
	}
}
