/** Installing from a clone, as a program that uses the client does, with the packages of npm's registry. */

import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, mkdir, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { inRepository, startBroker, temporary } from "./broker.js";

const CLIENT = fileURLToPath(new URL("../", import.meta.url));
const QUIETLY = ["--no-audit", "--no-fund", "--prefer-offline"];
const PROGRAM = `
  import { Client } from "vatn";
  const client = await Client.connect(process.argv[1]);
  await client.set("boat", { oars: 2 });
  console.log(JSON.stringify(await client.get("boat")));
  client.close();
`;

const run = async (cwd, command, ...args) => (await promisify(execFile)(command, args, { cwd })).stdout;

const npm = (cwd, command, ...args) => run(cwd, "npm", command, ...QUIETLY, ...args);

/** A clone of the repository in which git shows no change in the client. */
async function cloneIn(root) {
  const clone = join(root, "a clone");
  const isSource = (path) => basename(path) !== "node_modules";
  await cp(CLIENT, join(clone, "clients/node"), { recursive: true, filter: isSource });
  await cp(inRepository(".gitignore"), join(clone, ".gitignore"));
  await run(clone, "git", "init", "--quiet");
  await run(clone, "git", "add", ".");
  const author = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"];
  await run(clone, "git", ...author, "commit", "--quiet", "--message", "Add all");
  return clone;
}

const INSTALLATIONS = {
  "npm install FOLDER": (program, folder) => npm(program, "install", folder),
  "npm ci, of a lock file that names the folder": async (program, folder) => {
    await npm(program, "install", "--package-lock-only", "--ignore-scripts", folder);
    await npm(program, "ci");
  },
  "npm install --install-links FOLDER, without scripts": (program, folder) =>
    npm(program, "install", "--install-links", "--ignore-scripts", folder),
  "npm install $(npm pack --silent FOLDER)": async (program, folder) => {
    const tarball = (await run(program, "npm", "pack", "--silent", folder)).trim();
    await npm(program, "install", `./${tarball}`);
  },
};

for (const [name, install] of Object.entries(INSTALLATIONS)) {
  test(`${name} installs a working client, and leaves no file that git shows`, async (t) => {
    const broker = await startBroker(t);
    const root = dirname(await temporary(t));
    const clone = await cloneIn(root);
    const program = join(root, "a program");
    await mkdir(program);
    await writeFile(join(program, "package.json"), '{ "name": "program", "private": true }');
    await install(program, join(clone, "clients/node"));
    const output = await run(program, process.execPath, "--input-type=module", "--eval", PROGRAM, broker.router);
    assert.equal(output, '{"oars":2}\n');
    assert.equal(await run(clone, "git", "status", "--porcelain"), "");
  });
}
