// As call.mjs, for the function `presign`.
package main

import (
	"encoding/json"
	"os"
	"time"
)

type call struct {
	Args    [6]json.RawMessage
	Expires int64
}

func read[T any](raw json.RawMessage) (value T) {
	must(json.Unmarshal(raw, &value))
	return value
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	var calls []call
	must(json.NewDecoder(os.Stdin).Decode(&calls))
	made := []string{}
	for _, c := range calls {
		base, connection := read[string](c.Args[0]), read[string](c.Args[1])
		secret, path := read[string](c.Args[2]), read[string](c.Args[3])
		methods, paths := read[[]string](c.Args[4]), read[[]string](c.Args[5])
		for {
			now := time.Now().Unix()
			url := presign(base, connection, secret, path, methods, paths, time.Duration(c.Expires-now)*time.Second)
			if time.Now().Unix() == now {
				made = append(made, url)
				break
			}
		}
	}
	must(json.NewEncoder(os.Stdout).Encode(made))
}
