// Go's net/http, server and client.
//
//	web serve PORT FOLDER
//	web fetch PORT FOLDER      prints {"requests": n}
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"sync"
)

var folder string

func sum(data []byte) string {
	digest := sha256.Sum256(data)
	return hex.EncodeToString(digest[:])
}

func answer(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPut {
		digest := sha256.New()
		if _, err := io.Copy(digest, r.Body); err != nil {
			http.Error(w, err.Error(), 500)
			return
		}
		fmt.Fprint(w, hex.EncodeToString(digest.Sum(nil)))
		return
	}
	http.ServeFile(w, r, filepath.Join(folder, r.URL.Path))
}

func exchange(method, url string, body []byte) []byte {
	request, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		log.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != 200 {
		log.Fatal(method, " ", url, ": ", response.Status, " ", err)
	}
	return got
}

func one(url, name string) {
	content, err := os.ReadFile(filepath.Join(folder, name))
	if err != nil {
		log.Fatal(err)
	}
	if sum(exchange("GET", url+"/"+name, nil)) != sum(content) {
		log.Fatal("GET ", name, ": wrong bytes")
	}
	if string(exchange("PUT", url+"/sum", content)) != sum(content) {
		log.Fatal("PUT ", name, ": wrong bytes")
	}
}

func main() {
	port := os.Args[2]
	folder = os.Args[3]
	if os.Args[1] == "serve" {
		log.Fatal(http.ListenAndServe(":"+port, http.HandlerFunc(answer)))
	}
	url := "http://127.0.0.1:" + port
	requests := 0
	for i := 0; i < 100; i++ {
		one(url, "small")
		requests += 2
	}
	names := []string{"large", "large"}
	for i := 0; i < 20; i++ {
		names = append(names, "tiny", "small", "medium")
	}
	var group sync.WaitGroup
	for _, name := range names {
		group.Add(1)
		go func() {
			defer group.Done()
			one(url, name)
		}()
		requests += 2
	}
	group.Wait()
	fmt.Printf("{\"requests\": %d}\n", requests)
}
