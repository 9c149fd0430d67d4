// The published Connect clients against a running server, through every transport.
//
//     npm ci
//     PYROGRAPH_URL=http://127.0.0.1:4040 node --test
//
// The server may hold any data or none. With multitenancy on, PYROGRAPH_TENANT names the tenant.

import assert from "node:assert/strict";
import { after, describe, test } from "node:test";

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import * as node from "@connectrpc/connect-node";
import * as web from "@connectrpc/connect-web";

import { QuerierService } from "./schema.js";

const url = process.env.PYROGRAPH_URL ?? "http://127.0.0.1:4040";
const tenant = process.env.PYROGRAPH_TENANT;

const inTenant = (next) => (request) => {
  if (tenant) request.header.set("X-Scope-OrgID", tenant);
  return next(request);
};
const common = { baseUrl: url, interceptors: [inTenant] };

const sessions = [];
const http2 = () => {
  const sessionManager = new node.Http2SessionManager(url);
  sessions.push(sessionManager);
  return { httpVersion: "2", sessionManager };
};
const gzip = {
  sendCompression: node.compressionGzip,
  acceptCompression: [node.compressionGzip],
  compressMinBytes: 0,
};
const http1 = { httpVersion: "1.1" };

const transports = {
  "Connect JSON, HTTP/1.1": node.createConnectTransport({
    ...common,
    ...http1,
    useBinaryFormat: false,
  }),
  "Connect protobuf, HTTP/1.1": node.createConnectTransport({
    ...common,
    ...http1,
    useBinaryFormat: true,
  }),
  "Connect JSON, HTTP/2": node.createConnectTransport({
    ...common,
    ...http2(),
    useBinaryFormat: false,
  }),
  "Connect protobuf gzipped, HTTP/2": node.createConnectTransport({
    ...common,
    ...http2(),
    ...gzip,
    useBinaryFormat: true,
  }),
  "gRPC, HTTP/2": node.createGrpcTransport({ ...common, ...http2() }),
  "gRPC gzipped, HTTP/2": node.createGrpcTransport({ ...common, ...http2(), ...gzip }),
  "gRPC-web, HTTP/1.1": node.createGrpcWebTransport({ ...common, ...http1 }),
  "gRPC-web gzipped, HTTP/2": node.createGrpcWebTransport({ ...common, ...http2(), ...gzip }),
  "gRPC-web JSON, HTTP/1.1": node.createGrpcWebTransport({
    ...common,
    ...http1,
    useBinaryFormat: false,
  }),
  "Connect JSON of the browser": web.createConnectTransport({ ...common }),
  "Connect protobuf of the browser": web.createConnectTransport({
    ...common,
    useBinaryFormat: true,
  }),
  "gRPC-web of the browser": web.createGrpcWebTransport({ ...common }),
};

after(() => sessions.forEach((session) => session.abort()));

for (const [name, transport] of Object.entries(transports)) {
  describe(name, () => {
    const client = createClient(QuerierService, transport);
    const range = { start: 1000n, end: 4000n };

    test("a query is answered", async () => {
      const { profileTypes } = await client.profileTypes(range, { timeoutMs: 10_000 });
      for (const type of profileTypes) {
        assert.equal(type.ID.split(":").length, 5);
      }
    });

    test("a refusal keeps its code and its text", async () => {
      const refused = await client.labelNames({ matchers: ["{"] }).then(
        () => assert.fail("was answered"),
        (error) => ConnectError.from(error),
      );
      assert.equal(refused.code, Code.InvalidArgument);
      assert.notEqual(refused.rawMessage, "");
    });

    test("an unknown method is unimplemented", async () => {
      const refused = await client.noSuchMethod({}).then(
        () => assert.fail("was answered"),
        (error) => ConnectError.from(error),
      );
      assert.equal(refused.code, Code.Unimplemented);
    });

    test("many at once are answered", async () => {
      const calls = Array.from({ length: 50 }, () => client.profileTypes(range));
      assert.equal((await Promise.all(calls)).length, 50);
    });
  });
}
