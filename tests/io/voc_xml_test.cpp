// SPDX-License-Identifier: Apache-2.0

/// \file
/// Pascal VOC's annotation files: what is read, what is refused and where.

#include "quern/io/voc_xml.hpp"

#include <string>

#include <gtest/gtest.h>

namespace quern::test::voc_xml {
namespace {

constexpr const char* kGood = R"(<?xml version="1.0"?>
<!-- made by hand -->
<annotation verified="yes">
  <folder>VOC2007</folder>
  <filename>000001.jpg</filename>
  <size><width>353</width><height>500</height><depth>3</depth></size>
  <segmented/>
  <object>
    <name>salt &amp; pepper</name>
    <difficult>1</difficult>
    <bndbox><xmin>48</xmin><ymin>240.5</ymin><xmax>195</xmax><ymax> 371 </ymax></bndbox>
    <part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>
  </object>
  <object><name><![CDATA[dog]]></name><bndbox><ymin>1</ymin><xmin>2</xmin><xmax>3</xmax><ymax>4</ymax></bndbox></object>
</annotation>
)";

TEST(VocXmlTest, ReadsObjects) {
  const auto a = io::parse_voc_xml(kGood);
  EXPECT_EQ(a.filename, "000001.jpg");
  EXPECT_EQ(a.width, 353);
  EXPECT_EQ(a.height, 500);
  ASSERT_EQ(a.objects.size(), 2u);
  EXPECT_EQ(a.objects[0].name, "salt & pepper");
  EXPECT_TRUE(a.objects[0].difficult);
  EXPECT_EQ(a.objects[0].box.y1, 240.5);
  EXPECT_EQ(a.objects[0].box.y2, 371);
  EXPECT_EQ(a.objects[1].name, "dog");
  EXPECT_EQ(a.objects[1].box.x1, 2);
}

std::string refusal(const std::string& text) {
  try {
    (void)io::parse_voc_xml(text, "v.xml");
  } catch (const ParseError& error) {
    return error.what();
  }
  return "nothing";
}

void expect_refused(const std::string& from, const std::string& to, const std::string& why) {
  std::string text = kGood;
  text.replace(text.find(from), from.size(), to);
  const std::string message = refusal(text);
  EXPECT_NE(message.find(why), std::string::npos) << message;
}

TEST(VocXmlTest, RefusesWithThePlace) {
  expect_refused("<xmin>48</xmin>", "", "v.xml:11:13: a bndbox without all of");
  expect_refused("<xmin>48</xmin>", "<xmin>wide</xmin>", "expected a number in <xmin>, got 'wide'");
  expect_refused("<xmin>48</xmin>", "<xmin>480</xmin>", "negative size");
  expect_refused("<width>353", "<width>-353", "a negative size");
  expect_refused("&amp;", "&bomb;", "v.xml:9:16: an entity");
  expect_refused("</size>", "</sizes>", "expected </size>");
  expect_refused("<annotation", "<annotations", "expected the element <annotation>");
  expect_refused("<!-- made", "<!DOCTYPE made", "");
  expect_refused("<difficult>1</difficult>", "text", "expected an element");
  const std::string text = kGood;
  for (std::size_t n = 0; n + 1 < text.size(); ++n) {
    EXPECT_NE(refusal(text.substr(0, n)), "nothing") << n;
  }
}

}  // namespace
}  // namespace quern::test::voc_xml
