// http2 URL AUTHORIZATION: two requests with what net/http does by itself, in an environment that a user sets.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	for time := 0; time < 2; time++ {
		request, err := http.NewRequest("GET", os.Args[1], nil)
		must(err)
		if os.Args[2] != "" {
			request.Header.Set("Authorization", os.Args[2])
		}
		answer, err := http.DefaultClient.Do(request)
		must(err)
		_, err = io.Copy(io.Discard, answer.Body)
		must(err)
		must(answer.Body.Close())
		fmt.Println(answer.StatusCode, answer.Proto)
	}
}
