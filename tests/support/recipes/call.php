<?php
// As call.mjs, for the function `presign`.
require './recipe.php';

$made = [];
foreach (json_decode(stream_get_contents(STDIN), true) as $call) {
    do {
        $now = time();
        $url = presign(...$call['args'], lifetime: $call['expires'] - $now);
    } while (time() !== $now);
    $made[] = $url;
}
echo json_encode($made);
