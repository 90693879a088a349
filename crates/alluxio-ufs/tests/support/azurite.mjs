// Runs azurite's blob server on a free port, makes one container, says "READY port", and ends when
// its standard input does. Arguments: azurite's folder, the container.
import { spawn } from "node:child_process";
import { createHmac } from "node:crypto";
import { request } from "node:http";
import { join } from "node:path";

const [folder, container] = process.argv.slice(2);
// The account that azurite always has, as its documentation tells.
const account = "devstoreaccount1";
const key =
  "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

const server = spawn(
  process.execPath,
  [
    join(folder, "node_modules/azurite/dist/src/blob/main.js"),
    ...["--blobHost", "127.0.0.1", "--blobPort", "0", "--inMemoryPersistence"],
    ...["--skipApiVersionCheck", "--disableProductStyleUrl", "--disableTelemetry", "--silent"],
  ],
  { stdio: ["ignore", "pipe", "inherit"] },
);
const end = () => server.kill("SIGKILL");
process.stdin.on("end", () => (end(), process.exit(0)));
process.stdin.resume();
server.on("exit", () => process.exit(1));

let said = "";
server.stdout.on("data", (data) => {
  const before = said;
  said += data;
  const port = /successfully listens on http:\/\/127\.0\.0\.1:(\d+)/;
  if (!port.test(before) && port.test(said)) makeContainer(port.exec(said)[1]);
});

function makeContainer(port) {
  const date = new Date().toUTCString();
  const version = "2021-12-02";
  // "Authorize with Shared Key": the method, eleven headers that are empty, the x-ms- ones, and what
  // is asked for.
  const text =
    `PUT${"\n".repeat(12)}x-ms-date:${date}\nx-ms-version:${version}\n` +
    `/${account}/${account}/${container}\nrestype:container`;
  const mac = createHmac("sha256", Buffer.from(key, "base64")).update(text, "utf8");
  const headers = {
    "x-ms-date": date,
    "x-ms-version": version,
    "content-length": 0,
    authorization: `SharedKey ${account}:${mac.digest("base64")}`,
  };
  const path = `/${account}/${container}?restype=container`;
  const made = request({ host: "127.0.0.1", port, path, method: "PUT", headers }, (answer) => {
    answer.resume();
    if (answer.statusCode === 201) process.stdout.write(`READY ${port}\n`);
    else (console.error(`the container was not made: ${answer.statusCode}`), end());
  });
  made.end();
}
