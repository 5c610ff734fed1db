/** Installing from a clone, as a program does that uses the client. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { inRepository, temporary } from "./broker.js";

const CLIENT = fileURLToPath(new URL("../", import.meta.url));

const run = async (cwd, command, ...args) => (await promisify(execFile)(command, args, { cwd })).stdout;

test("npm installs it with what it needs, and leaves nothing that git shows", async (t) => {
  const root = await temporary(t);
  const [clone, program] = [join(root, "clone"), join(root, "program")];
  const files = await run(CLIENT, "git", "ls-files", "--cached", "--others", "--exclude-standard", ".");
  for (const name of files.split("\n").filter(Boolean)) await cp(join(CLIENT, name), join(clone, name));
  await cp(inRepository(".gitignore"), join(clone, ".gitignore"));
  await run(clone, "git", "init", "--quiet");
  await run(clone, "git", "add", ".");
  await mkdir(program);
  await writeFile(join(program, "package.json"), '{ "name": "program", "private": true }');
  await run(program, "npm", "install", "--prefer-offline", "--no-audit", "--no-fund", clone);
  const code = 'import { Client } from "vatn"; console.log(typeof Client.connect);';
  assert.equal(await run(program, process.execPath, "--input-type=module", "--eval", code), "function\n");
  const shown = (await run(clone, "git", "status", "--porcelain"))
    .split("\n")
    .filter((line) => line && !line.startsWith("A "));
  assert.deepEqual(shown, []);
});
