// What a client of the querier knows of it, written down a second time: if `proto/` and this file ever
// disagree about a number or a name, the tests beside it fail.

import { createFileRegistry, fromJson } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";

const field = (name, number, type, rest = {}) => ({
  name,
  number,
  type: `TYPE_${type}`,
  label: "LABEL_OPTIONAL",
  ...rest,
});
const repeated = { label: "LABEL_REPEATED" };

const types = {
  name: "types/v1/types.proto",
  package: "types.v1",
  syntax: "proto3",
  messageType: [
    {
      name: "ProfileType",
      field: [
        field("ID", 1, "STRING"),
        field("name", 2, "STRING"),
        field("sample_type", 4, "STRING"),
        field("sample_unit", 5, "STRING"),
        field("period_type", 6, "STRING"),
        field("period_unit", 7, "STRING"),
      ],
    },
    {
      name: "LabelNamesRequest",
      field: [
        field("matchers", 1, "STRING", repeated),
        field("start", 2, "INT64"),
        field("end", 3, "INT64"),
      ],
    },
    { name: "LabelNamesResponse", field: [field("names", 1, "STRING", repeated)] },
  ],
};

const querier = {
  name: "querier/v1/querier.proto",
  package: "querier.v1",
  syntax: "proto3",
  dependency: ["types/v1/types.proto"],
  messageType: [
    {
      name: "ProfileTypesRequest",
      field: [field("start", 1, "INT64"), field("end", 2, "INT64")],
    },
    {
      name: "ProfileTypesResponse",
      field: [
        field("profile_types", 1, "MESSAGE", { ...repeated, typeName: ".types.v1.ProfileType" }),
      ],
    },
  ],
  service: [
    {
      name: "QuerierService",
      method: [
        {
          name: "ProfileTypes",
          inputType: ".querier.v1.ProfileTypesRequest",
          outputType: ".querier.v1.ProfileTypesResponse",
        },
        {
          name: "LabelNames",
          inputType: ".types.v1.LabelNamesRequest",
          outputType: ".types.v1.LabelNamesResponse",
        },
        {
          name: "NoSuchMethod",
          inputType: ".types.v1.LabelNamesRequest",
          outputType: ".types.v1.LabelNamesResponse",
        },
      ],
    },
  ],
};

const files = new Map(
  [types, querier].map((file) => [file.name, fromJson(FileDescriptorProtoSchema, file)]),
);
const registry = createFileRegistry(files.get(querier.name), (name) => files.get(name));

export const QuerierService = registry.getService("querier.v1.QuerierService");
