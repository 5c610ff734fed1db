/**
 * Run by npm. `npm install PATH` only links to this folder, and installs nothing into it. So this script installs the
 * packages that the client needs. A tarball of `npm pack` does not need them: npm installs them beside it.
 */

import { spawnSync } from "node:child_process";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

const here = fileURLToPath(new URL(".", import.meta.url));

function isComplete() {
  const { resolve } = createRequire(import.meta.url);
  try {
    return Boolean(resolve("zeromq") && resolve("@msgpack/msgpack"));
  } catch {
    return false;
  }
}

const isPacked = ["pack", "publish"].includes(process.env.npm_command);

if (!isComplete() && !isPacked && !process.env.VATN_PREPARING) {
  const own = ["npm_config_global", "npm_config_location", "npm_config_local_prefix", "npm_config_prefix"];
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !own.includes(name)));
  env.VATN_PREPARING = "1";
  const npm = process.env.npm_execpath?.endsWith("npm-cli.js") ? [process.execPath, process.env.npm_execpath] : ["npm"];
  const [command, ...first] = npm;
  const done = spawnSync(command, [...first, "ci", "--omit=dev", "--no-audit", "--no-fund"], {
    cwd: here,
    env,
    stdio: "inherit",
  });
  if (done.status !== 0) {
    console.error(`vatn: \`npm ci\` failed in ${here}: run it there, or use \`npm install --install-links ${here}\``);
    process.exit(1);
  }
}
